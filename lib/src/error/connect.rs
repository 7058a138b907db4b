//! placeholder until the branch net lands
