//! Signer and verifier together, and what attackers try between them.

mod rotation;

use std::sync::LazyLock;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};

use super::*;

static KEYS: LazyLock<GeneratedKeys> = LazyLock::new(|| generate().unwrap());
static OTHER_KEYS: LazyLock<GeneratedKeys> = LazyLock::new(|| generate().unwrap());

fn config_of(keys: &GeneratedKeys) -> TokenConfig {
    TokenConfig {
        issuer: "https://api.example".to_owned(),
        audience: "lockstep".to_owned(),
        access_ttl: Duration::from_mins(15),
        jwks: keys.jwks.clone(),
        jwks_entry: None,
        signing_key: Some(keys.private_pem.clone()),
        signing_key_entry: None,
    }
}

fn config() -> TokenConfig {
    config_of(&KEYS)
}

fn signer() -> Signer {
    Signer::new(&config()).unwrap()
}

fn verifier() -> Verifier {
    Verifier::new(&config()).unwrap()
}

fn key() -> EncodingKey {
    EncodingKey::from_rsa_pem(KEYS.private_pem.expose_secret().as_bytes()).unwrap()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn header() -> Value {
    json!({"alg": "RS256", "typ": "at+jwt", "kid": signer().current().header.kid})
}

fn claims() -> Value {
    json!({
        "iss": "https://api.example", "aud": "lockstep", "sub": UserId::draw(), "jti": Uuid::new_v4(),
        "iat": now_s(), "nbf": now_s(), "exp": now_s() + 900,
    })
}

fn with(mut base: Value, field: &str, value: Value) -> Value {
    base[field] = value;
    base
}

fn without(mut base: Value, field: &str) -> Value {
    base.as_object_mut().unwrap().remove(field);
    base
}

/// `header.claims`, to be signed.
fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// A token with any header and claims, signed with our own key: everything but its content is right.
fn forge(header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key(), Algorithm::RS256).unwrap();
    format!("{message}.{signature}")
}

#[test]
fn what_the_signer_issues_the_verifier_takes() {
    let user = UserId::draw();
    let issued = signer().access_token(user).unwrap();
    assert_eq!(issued.expires_in, Duration::from_mins(15));
    let claims = verifier().verify(issued.token.expose_secret()).unwrap();
    assert_eq!(claims.sub, user);
    assert_eq!(claims.exp - claims.nbf, 900);
    assert_eq!(claims.iss, "https://api.example");
    let header = jsonwebtoken::decode_header(issued.token.expose_secret()).unwrap();
    assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::RS256, Some("at+jwt")));
    let again = signer().access_token(user).unwrap();
    assert_ne!(verifier().verify(again.token.expose_secret()).unwrap().jti, claims.jti);
}

#[test]
fn a_forgery_with_our_own_key_and_right_content_holds() {
    verifier().verify(&forge(&header(), &claims())).unwrap();
}

#[test]
fn the_kid_is_the_thumbprint_of_rfc_7638() {
    // The example of RFC 7638, section 3.1.
    let jwk: Jwk = serde_json::from_value(json!({
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
    }))
    .unwrap();
    assert_eq!(jwk.thumbprint(ThumbprintHash::SHA256).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    let set: JwkSet = serde_json::from_str(&KEYS.jwks).unwrap();
    assert_eq!(signer().current().header.kid, set.keys[0].common.key_id);
}

#[test]
fn a_token_without_a_signature_is_refused() {
    for alg in ["none", "None", "NONE", ""] {
        let message = message(&with(header(), "alg", json!(alg)), &claims());
        assert!(verifier().verify(&format!("{message}.")).is_err(), "{alg}");
        assert!(verifier().verify(&message).is_err(), "{alg}");
    }
    let message = message(&header(), &claims());
    assert!(verifier().verify(&format!("{message}.")).is_err());
}

#[test]
fn the_public_key_is_no_symmetric_secret() {
    let set: JwkSet = serde_json::from_str(&KEYS.jwks).unwrap();
    let private = KeyPair::from_pkcs8(&der_of(KEYS.private_pem.expose_secret())).unwrap();
    let public = aws_lc_rs::signature::KeyPair::public_key(&private);
    let spki: aws_lc_rs::encoding::PublicKeyX509Der<'_> = public.as_der().unwrap();
    let secrets: [Vec<u8>; 5] = [
        pem("PUBLIC KEY", spki.as_ref()).into_bytes(),
        spki.as_ref().to_vec(),
        public.as_ref().to_vec(),
        KEYS.jwks.clone().into_bytes(),
        serde_json::to_vec(&set.keys[0]).unwrap(),
    ];
    for (alg, name) in [(Algorithm::HS256, "HS256"), (Algorithm::HS384, "HS384"), (Algorithm::HS512, "HS512")] {
        for secret in &secrets {
            let message = message(&with(header(), "alg", json!(name)), &claims());
            let signature =
                jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(secret), alg).unwrap();
            assert!(verifier().verify(&format!("{message}.{signature}")).is_err(), "{name}");
        }
    }
}

fn der_of(pem: &str) -> Vec<u8> {
    STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
}

#[test]
fn no_other_rsa_algorithm_is_taken() {
    for (alg, name) in [(Algorithm::RS384, "RS384"), (Algorithm::RS512, "RS512"), (Algorithm::PS256, "PS256")] {
        let message = message(&with(header(), "alg", json!(name)), &claims());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key(), alg).unwrap();
        assert!(verifier().verify(&format!("{message}.{signature}")).is_err(), "{name}");
    }
}

#[test]
fn a_key_that_is_not_ours_is_refused_whatever_the_header_says() {
    let attacker = Signer::new(&config_of(&OTHER_KEYS)).unwrap();
    let key = &*attacker.current().key;
    let theirs: JwkSet = serde_json::from_str(&OTHER_KEYS.jwks).unwrap();
    let their_kid = attacker.current().header.kid.clone();
    let headers = [
        // Under its own name, under ours, under none, and under names that a careless look-up could trip over.
        with(header(), "kid", json!(their_kid)),
        header(),
        without(header(), "kid"),
        with(header(), "kid", json!("")),
        with(header(), "kid", json!("../../dev/null")),
        with(header(), "kid", json!("' OR 1=1 --")),
        with(header(), "kid", json!("0")),
        // Bringing the key along.
        with(header(), "jwk", serde_json::to_value(&theirs.keys[0]).unwrap()),
        with(header(), "jku", json!("https://attacker.example/jwks.json")),
        with(header(), "x5u", json!("https://attacker.example/cert.pem")),
        with(header(), "x5c", json!(["MIIB"])),
    ];
    for header in headers {
        let message = message(&header, &claims());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::RS256).unwrap();
        assert!(verifier().verify(&format!("{message}.{signature}")).is_err(), "{header}");
    }
}

#[test]
fn headers_that_point_to_keys_are_ignored() {
    for (field, value) in [("jku", "https://attacker.example/jwks.json"), ("x5u", "https://attacker.example/cert.pem")]
    {
        verifier().verify(&forge(&with(header(), field, json!(value)), &claims())).unwrap();
    }
    let theirs: JwkSet = serde_json::from_str(&OTHER_KEYS.jwks).unwrap();
    let jwk = serde_json::to_value(&theirs.keys[0]).unwrap();
    verifier().verify(&forge(&with(header(), "jwk", jwk), &claims())).unwrap();
}

#[test]
fn an_extension_that_must_be_understood_is_refused() {
    assert!(verifier().verify(&forge(&with(header(), "crit", json!(["b64"])), &claims())).is_err());
}

#[test]
fn other_kinds_of_tokens_are_refused() {
    for typ in [json!("JWT"), json!("refresh+jwt"), json!(""), Value::Null] {
        assert!(verifier().verify(&forge(&with(header(), "typ", typ.clone()), &claims())).is_err(), "{typ}");
    }
    assert!(verifier().verify(&forge(&without(header(), "typ"), &claims())).is_err());
}

#[test]
fn claims_that_are_wrong_or_missing_are_refused() {
    let wrong = [
        ("exp", json!(now_s() - 60)),
        ("exp", json!("never")),
        ("nbf", json!(now_s() + 60)),
        ("iss", json!("https://attacker.example")),
        ("iss", json!(["https://api.example"])),
        ("aud", json!("another")),
        ("aud", json!(["another", "lockstep"])),
        ("sub", json!("root")),
        ("sub", json!("")),
    ];
    for (claim, value) in wrong {
        assert!(
            verifier().verify(&forge(&header(), &with(claims(), claim, value.clone()))).is_err(),
            "{claim} {value}"
        );
    }
    for claim in ["iss", "aud", "sub", "exp", "nbf", "iat", "jti"] {
        assert!(verifier().verify(&forge(&header(), &without(claims(), claim))).is_err(), "{claim}");
    }
}

#[test]
fn a_token_lives_for_its_time_and_no_longer() {
    let user = UserId::draw();
    let at =
        |ago_s| signer().access_token_at(user, None, SystemTime::now() - Duration::from_secs(ago_s)).unwrap().token;
    verifier().verify(at(890).expose_secret()).unwrap();
    assert!(verifier().verify(at(910).expose_secret()).is_err());
}

#[test]
fn a_token_that_is_cut_changed_or_too_long_is_refused() {
    let token = forge(&header(), &claims());
    for cut in [0, 1, token.len() / 2, token.rfind('.').unwrap(), token.rfind('.').unwrap() + 1, token.len() - 1] {
        assert!(verifier().verify(token.get(..cut).unwrap()).is_err(), "cut at {cut}");
    }
    for junk in
        ["", ".", "..", "...", "a.b.c", "\u{0}", &format!("{token}.x"), &format!("{token} "), &format!("x{token}")]
    {
        assert!(verifier().verify(junk).is_err(), "{junk}");
    }
    let mut parts: Vec<&str> = token.split('.').collect();
    let other = forge(&header(), &claims());
    parts[1] = other.split('.').nth(1).unwrap();
    assert!(verifier().verify(&parts.join(".")).is_err(), "claims of another token");
    let long = with(claims(), "pad", json!("x".repeat(8_000)));
    assert!(verifier().verify(&forge(&header(), &long)).is_err());
}

#[test]
fn without_a_signing_key_the_start_is_refused() {
    let config = TokenConfig { signing_key: None, ..config() };
    assert!(matches!(Signer::new(&config), Err(ConfigError::Missing("TOKEN_SIGNING_KEY"))));
}

#[test]
fn a_signing_key_that_nobody_can_check_is_refused_at_the_start() {
    let config = TokenConfig { jwks: OTHER_KEYS.jwks.clone(), ..config() };
    assert!(matches!(Signer::new(&config), Err(ConfigError::Invalid { name: "TOKEN_JWKS", .. })));
    let renamed = KEYS.jwks.replace(signer().current().header.kid.as_deref().unwrap(), "mine");
    let config = TokenConfig { jwks: renamed, ..config };
    assert!(matches!(Signer::new(&config), Err(ConfigError::Invalid { name: "TOKEN_JWKS", .. })));
}

#[test]
fn a_signing_key_that_is_none_is_refused_and_not_shown() {
    for text in ["", "sesame", "-----BEGIN PRIVATE KEY-----\nc2VzYW1l\n-----END PRIVATE KEY-----\n", &KEYS.jwks] {
        let config = TokenConfig { signing_key: Some(text.into()), ..config() };
        let error = Signer::new(&config).unwrap_err();
        assert!(matches!(error, ConfigError::Invalid { name: "TOKEN_SIGNING_KEY", .. }));
        assert!(!format!("{error:?}").contains("sesame"));
    }
    let shown = format!("{:?} {:?} {:?}", signer(), config(), *KEYS);
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn keys_in_rotation_are_checked_side_by_side() {
    let mut set: JwkSet = serde_json::from_str(&KEYS.jwks).unwrap();
    set.keys.extend(serde_json::from_str::<JwkSet>(&OTHER_KEYS.jwks).unwrap().keys);
    let jwks = serde_json::to_string(&set).unwrap();
    let verifier = Verifier::new(&TokenConfig { jwks: jwks.clone(), ..config() }).unwrap();
    for keys in [&*KEYS, &*OTHER_KEYS] {
        let signer = Signer::new(&TokenConfig { jwks: jwks.clone(), ..config_of(keys) }).unwrap();
        verifier.verify(signer.access_token(UserId::draw()).unwrap().token.expose_secret()).unwrap();
    }
}

#[test]
fn a_key_set_with_anything_but_named_rsa_keys_is_refused() {
    let ours: Value = serde_json::from_str(&KEYS.jwks).unwrap();
    let key = &ours["keys"][0];
    for keys in [
        json!([]),
        json!([without(key.clone(), "kid")]),
        json!([key, key]),
        json!([with(key.clone(), "alg", json!("RS512"))]),
        json!([{"kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0"}]),
    ] {
        let config = TokenConfig { jwks: json!({"keys": keys}).to_string(), ..config() };
        assert!(Verifier::new(&config).is_err(), "{keys}");
    }
}

#[tokio::test]
async fn private_members_of_a_key_set_are_never_published() {
    let mut leaky: Value = serde_json::from_str(&KEYS.jwks).unwrap();
    leaky["keys"][0]["d"] = json!("c2VjcmV0");
    let verifier = Verifier::new(&TokenConfig { jwks: leaky.to_string(), ..config() }).unwrap();
    assert!(!serde_json::to_string(&verifier.key_set().await).unwrap().contains("c2VjcmV0"));
}

#[test]
fn another_library_call_checks_the_tokens_as_a_gateway_would() {
    let token = signer().access_token(UserId::draw()).unwrap().token;
    let set: JwkSet = serde_json::from_str(&KEYS.jwks).unwrap();
    let kid = jsonwebtoken::decode_header(token.expose_secret()).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["lockstep"]);
    jsonwebtoken::decode::<Value>(token.expose_secret(), &key, &validation).unwrap();
}
