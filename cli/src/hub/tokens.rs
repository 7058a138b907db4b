//! Signed tokens: JSON Web Tokens that say what their bearer may do.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use serde::Deserialize;
use unstall_topics::{Denied, Filter, Grants};

use super::identity::{Identity, Pass};
use crate::failure::Failure;

/// RFC 7518 section 3.2: a key of HS256 has at least as many bits as its hash.
const SECRET_BYTES: usize = 32;

/// The key that signs tokens. It decides the algorithm; what a token says of that must agree.
pub(super) struct Tokens {
    key: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for Tokens {
    // Without the key, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("algorithms", &self.validation.algorithms)
            .finish_non_exhaustive()
    }
}

/// What a token says. Other claims are ignored, but for `nbf` and `aud`.
#[derive(Deserialize)]
struct Claims {
    /// Filters that it may publish to.
    #[serde(default, rename = "pub")]
    publish: Vec<String>,
    /// Filters that it may subscribe to. In other tokens `sub` is the subject, a text.
    #[serde(default, rename = "sub")]
    subscribe: Vec<String>,
    /// When it expires, in seconds since 1970.
    exp: f64,
    /// Who it is.
    id: Option<String>,
}

impl Tokens {
    /// The key in a file: a secret, or a public key in PEM.
    pub(super) fn from_file(file: &Path) -> Result<Tokens, Failure> {
        let name = file.display();
        let bytes = std::fs::read(file)
            .map_err(|error| Failure::work(format_args!("cannot read the key {name}: {error}")))?;
        Tokens::from_bytes(&bytes)
            .map_err(|why| Failure::work(format_args!("the key {name} cannot be used: {why}")))
    }

    fn from_bytes(bytes: &[u8]) -> Result<Tokens, String> {
        let text = String::from_utf8_lossy(bytes);
        let (algorithm, key) = match text.contains("-----BEGIN ") {
            true => public_key(&text)?,
            false => (Algorithm::HS256, secret(bytes)?),
        };
        // The algorithm is the key's alone. Else a public key could be taken for a secret.
        let mut validation = Validation::new(algorithm);
        validation.validate_nbf = true;
        validation.leeway = 0;
        Ok(Tokens { key, validation })
    }

    /// What the bearer of a token may do.
    pub(super) fn check(&self, token: &str) -> Result<Pass, Denied> {
        let decoded = decode::<Claims>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|error| denied(why(error.kind())))?.claims;
        let mut grants = Grants::none();
        for filter in &claims.publish {
            grants = grants.publish(self::filter(filter)?);
        }
        for filter in &claims.subscribe {
            grants = grants.subscribe(self::filter(filter)?);
        }
        let expires = Duration::try_from_secs_f64(claims.exp)
            .ok()
            .and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        let expires = expires.ok_or_else(|| denied("its claim exp is not a time"))?;
        let identity = match claims.id {
            Some(id) => Identity::Named(id),
            None => {
                let hash = digest(&SHA256, token.as_bytes());
                Identity::Token(hash.as_ref().to_vec())
            }
        };
        Ok(Pass::new(grants.until(expires), identity))
    }
}

fn filter(text: &str) -> Result<Filter, Denied> {
    Filter::new(text)
        .map_err(|error| denied(&format!("its claims have an invalid filter: {error}")))
}

fn denied(why: &str) -> Denied {
    Denied(format!("the token is not valid: {why}"))
}

/// Why a token is not taken, without a word of it.
fn why(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidSignature => "another key has signed it",
        ErrorKind::InvalidAlgorithm => "it names another algorithm than the key's",
        ErrorKind::MissingRequiredClaim(_) => "it has no claim exp",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::Json(_) => {
            "its claims have another form; pub and sub are lists of filters, exp a number, id a text"
        }
        _ => "it is not a signed JSON Web Token",
    }
}

fn secret(bytes: &[u8]) -> Result<DecodingKey, String> {
    // Editors and `echo` end a file with a newline.
    let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.len() < SECRET_BYTES {
        return Err(format!(
            "a secret of HS256 has at least {SECRET_BYTES} bytes, and this one has {}; make one with \
             `openssl rand -hex 32`",
            secret.len()
        ));
    }
    DecodingKey::from_secret(secret).map_err(|error| error.to_string())
}

fn public_key(pem: &str) -> Result<(Algorithm, DecodingKey), String> {
    if pem.contains("PRIVATE KEY-----") {
        return Err("it is a private key; the hub needs the public key alone".to_owned());
    }
    if pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(
            "it is a certificate; take the public key out: `openssl x509 -pubkey -noout`"
                .to_owned(),
        );
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem.as_bytes()) {
        return Ok((Algorithm::EdDSA, key));
    }
    if let Ok(key) = DecodingKey::from_rsa_pem(pem.as_bytes()) {
        return Ok((Algorithm::RS256, key));
    }
    Err("it is not a public key of RSA or Ed25519 in PEM".to_owned())
}
