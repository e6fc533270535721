//! The signature of webhooks, as Standard Webhooks has it (https://www.standardwebhooks.com): HMAC-SHA256 over
//! `{id}.{timestamp}.{body}`, in base64 after `v1,`; several, by several secrets, with spaces between.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

const PREFIX: &str = "whsec_";

/// A secret of 32 random bytes, as clients' libraries take it.
pub fn new_signing_secret() -> SecretString {
    SecretString::from(format!("{PREFIX}{}", STANDARD.encode(rand::random::<[u8; 32]>())))
}

/// The value of the `webhook-signature` header: one signature for each secret.
pub fn sign(secrets: &[SecretString], id: &str, timestamp: i64, body: &str) -> String {
    let signed = format!("{id}.{timestamp}.{body}");
    let signatures: Vec<String> = secrets.iter().filter_map(|secret| one(secret, &signed)).collect();
    signatures.join(" ")
}

/// `None` only for an HMAC that refuses a key, which none does: any length is allowed.
fn one(secret: &SecretString, signed: &str) -> Option<String> {
    let text = secret.expose_secret();
    let key = text.strip_prefix(PREFIX).and_then(|encoded| STANDARD.decode(encoded).ok());
    let key = key.unwrap_or_else(|| text.as_bytes().to_vec());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(signed.as_bytes());
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python's hmac and base64 from the definition above.
    #[test]
    fn a_known_signature_comes_out() {
        let secrets = [SecretString::from("whsec_MDEyMzQ1Njc4OWFiY2RlZg=="), SecretString::from("plain")];
        let signature = sign(&secrets, "evt_1", 1_700_000_000, r#"{"a":1}"#);
        assert_eq!(
            signature,
            "v1,Ohi4NGMYwRFrIRUJa13YAbxiEydKHDp9bqlnQTDCY+8= v1,3tR1XPuIqkneCFyuCeuRdkmn2SJUxTA63bsnlh4ogpI="
        );
    }

    #[test]
    fn secrets_are_long_and_differ() {
        let (a, b) = (new_signing_secret(), new_signing_secret());
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert_eq!(a.expose_secret().len(), PREFIX.len() + 44);
    }
}
