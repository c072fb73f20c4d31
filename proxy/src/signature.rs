//! What a service signs: cookies and links that come back from visitors, and that only we can have made.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A signature is so long, in bytes; its hexadecimal digits are twice as many.
const BYTES: usize = 16;

/// A service's key; it lasts as long as the service.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; Self::BYTES]);

impl Key {
    /// How long a key is.
    pub const BYTES: usize = 32;

    /// Returns the key of these bytes.
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the signature of some words, in hexadecimal digits. The first word says what it is for, so that none can be used
    /// for something else; no word has a zero byte.
    pub(crate) fn sign(&self, words: &[&str]) -> String {
        let digest = self.mac(words).finalize().into_bytes();
        digest[..BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Tells whether a signature is that of the words, in a time that says nothing of where it differs.
    pub(crate) fn has_signed(&self, words: &[&str], signature: &str) -> bool {
        let digits = signature.as_bytes();
        if digits.len() != 2 * BYTES {
            return false;
        }
        let mut bytes = [0; BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+'));
            let Some(value) = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) else { return false };
            *byte = value;
        }
        self.mac(words).verify_truncated_left(&bytes).is_ok()
    }

    /// Returns a number that the words lead to, and that nobody without the key can tell.
    pub(crate) fn number(&self, words: &[&str]) -> u64 {
        let digest = self.mac(words).finalize().into_bytes();
        digest[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn mac(&self, words: &[&str]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        for word in words {
            mac.update(word.as_bytes());
            mac.update(&[0]);
        }
        mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_words_and_its_key_alone() {
        let (key, other) = (Key::new([7; 32]), Key::new([8; 32]));
        let signature = key.sign(&["canary", "shop", "1"]);
        assert_eq!(signature.len(), 32);
        assert!(key.has_signed(&["canary", "shop", "1"], &signature));
        for words in
            [&["canary", "shop", "2"][..], &["preview", "shop", "1"], &["canary", "shop1"], &["canary", "sho", "p1"]]
        {
            assert!(!key.has_signed(words, &signature), "{words:?}");
        }
        assert!(!other.has_signed(&["canary", "shop", "1"], &signature));
        let last = if signature.ends_with('0') { '1' } else { '0' };
        let mut wrong = signature[..31].to_owned();
        wrong.push(last);
        for wrong in [wrong.as_str(), &signature[..30], "", "+f", &"é".repeat(16)] {
            assert!(!key.has_signed(&["canary", "shop", "1"], wrong), "{wrong}");
        }
        assert!(format!("{key:?}").find('7').is_none());
    }

    /// Of an empty message, by a key of zeros, with which the algorithm fills every key up; `openssl dgst -sha256 -hmac ""` says so too.
    #[test]
    fn the_algorithm_is_hmac_sha_256() {
        assert_eq!(Key::new([0; 32]).sign(&[]), "b613679a0814d9ec772f95d778c35fc5");
    }
}
