//! Signed tokens: JSON Web Tokens that say what their bearer may do.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto::verify, decode_header};
use serde::{Deserialize, de::IgnoredAny};
use unstall_topics::{Denied, Filter, Grants};

use super::identity::{Identity, Pass};
use crate::failure::Failure;

/// RFC 7518 section 3.2: a key of HS256 has at least as many bits as its hash.
const SECRET_BYTES: usize = 32;

/// The key that signs tokens. It decides the algorithm; what a token says of that must agree.
pub(super) struct Tokens {
    key: DecodingKey,
    algorithm: Algorithm,
}

impl std::fmt::Debug for Tokens {
    // Without the key, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// What a token says. Other claims are ignored.
#[derive(Deserialize)]
struct Claims {
    /// Filters that it may publish to.
    #[serde(default, rename = "pub")]
    publish: Vec<String>,
    /// Filters that it may subscribe to. In other tokens `sub` is the subject, a text.
    #[serde(default, rename = "sub")]
    subscribe: Vec<String>,
    /// When it expires, in seconds since 1970.
    exp: Option<f64>,
    /// When it becomes valid, in seconds since 1970.
    nbf: Option<f64>,
    /// Who it is for. The hub has no name, so it is for others.
    aud: Option<IgnoredAny>,
    /// Who it is.
    id: Option<String>,
    /// Whether it may see how the hub is doing.
    #[serde(default)]
    operate: bool,
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
        // The algorithm is the key's alone. Else a public key could be taken for a secret.
        let (algorithm, key) = match text.contains("-----BEGIN ") {
            true => public_key(&text)?,
            false => (Algorithm::HS256, secret(bytes)?),
        };
        Ok(Tokens { key, algorithm })
    }

    /// What the bearer of a token may do.
    pub(super) fn check(&self, token: &str) -> Result<Pass, Denied> {
        let claims = self.claims(token).map_err(denied)?;
        let expires = claims.valid_until(SystemTime::now()).map_err(denied)?;
        let mut grants = Grants::none();
        for filter in &claims.publish {
            grants = grants.publish(self::filter(filter)?);
        }
        for filter in &claims.subscribe {
            grants = grants.subscribe(self::filter(filter)?);
        }
        let identity = match claims.id {
            Some(id) => Identity::Named(id),
            None => {
                let hash = digest(&SHA256, token.as_bytes());
                Identity::Token(hash.as_ref().to_vec())
            }
        };
        Ok(Pass::new(grants.until(expires), identity).operator(claims.operate))
    }

    /// The claims that the key has signed (RFC 7515 section 5.2).
    ///
    /// `jsonwebtoken::decode` would also read `sub` as a text, and refuses every token whose `sub` is a
    /// list.
    fn claims(&self, token: &str) -> Result<Claims, &'static str> {
        const NO_TOKEN: &str = "it is not a signed JSON Web Token";
        let header = decode_header(token).map_err(|_| NO_TOKEN)?;
        if header.alg != self.algorithm {
            return Err("it names another algorithm than the key's");
        }
        // An extension that has to be understood: none is.
        let encoding = header.extras.get::<bool>("b64");
        if header.crit.is_some() || !matches!(encoding, Ok(None | Some(true))) {
            return Err("its header needs an extension that the hub does not have");
        }
        let (message, signature) = token.rsplit_once('.').ok_or(NO_TOKEN)?;
        let (_, payload) = message.split_once('.').ok_or(NO_TOKEN)?;
        match verify(signature, message.as_bytes(), &self.key, self.algorithm) {
            Ok(true) => {}
            Ok(false) => return Err("another key has signed it"),
            Err(_) => return Err(NO_TOKEN),
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| NO_TOKEN)?;
        serde_json::from_slice(&payload).map_err(|_| {
            "its claims have another form: pub and sub are lists of filters, exp and nbf numbers, id a \
             text, operate true or false"
        })
    }
}

impl Claims {
    /// When it expires, if it is valid now.
    fn valid_until(&self, now: SystemTime) -> Result<SystemTime, &'static str> {
        let expires = self.exp.ok_or("it has no claim exp")?;
        let expires = time(expires).ok_or("its claim exp is not a time")?;
        if expires <= now {
            return Err("it has expired");
        }
        if let Some(begins) = self.nbf {
            let begins = time(begins).ok_or("its claim nbf is not a time")?;
            if begins > now {
                return Err("it is not valid yet");
            }
        }
        match self.aud {
            None => Ok(expires),
            Some(IgnoredAny) => Err("it is for another audience"),
        }
    }
}

/// A time in seconds since 1970.
fn time(seconds: f64) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

fn filter(text: &str) -> Result<Filter, Denied> {
    Filter::new(text)
        .map_err(|error| denied(&format!("its claims have an invalid filter: {error}")))
}

fn denied(why: &str) -> Denied {
    Denied(format!("the token is not valid: {why}"))
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
