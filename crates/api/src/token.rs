//! Bearer tokens: how one is made, and the hash that is all callq keeps of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use callq_domain::TokenHash;
use sha2::{Digest, Sha256};

/// What every token begins with, so that a leaked one can be recognised for what it is.
pub const TOKEN_PREFIX: &str = "callq_";

/// A new token and its hash: `callq_` and 43 characters that stand for 256 random bits.
///
/// The text is shown to its owner once; only the hash is stored. Called by whoever makes users
/// and tokens, which is the command line.
#[must_use]
pub fn mint_token() -> (String, TokenHash) {
    let secret: [u8; 32] = rand::random();
    let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let hash = hash_token(&token);
    (token, hash)
}

/// The SHA-256 of a token's text.
///
/// No salt and no stretching: a token is 256 random bits, so there is nothing to guess.
#[must_use]
pub fn hash_token(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognisable_long_enough_and_never_the_same_twice() {
        let (first, hash) = mint_token();
        let (second, other) = mint_token();
        assert_eq!(first.len(), TOKEN_PREFIX.len() + 43);
        assert!(first.starts_with(TOKEN_PREFIX));
        assert!(first != second && hash != other);
        assert!(hash_token(&first) == hash);
    }
}
