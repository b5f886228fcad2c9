//! What is read, and what is refused by name.

use serde_json::{Value, json};
use shared::problem::Code;

use super::{sql::Condition, *};

fn refused(value: &Value) -> (Code, String) {
    let problem = parse(value).expect_err(&value.to_string());
    let body: Value = serde_json::from_str(&problem.body("test")).unwrap();
    (problem.code(), body["field"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn members_of_an_object_must_all_hold() {
    let field = || Field::Attribute(vec!["lang".to_owned()]);
    let eq = |text: &str| Filter::Test(field(), Test::In(vec![Scalar::Text(text.to_owned())]));
    assert_eq!(parse(&json!({"attributes.lang": {"eq": "en"}})).unwrap(), eq("en"));
    assert_eq!(parse(&json!({"attributes.lang": {"ne": "en"}})).unwrap(), Filter::Not(Box::new(eq("en"))));
    assert_eq!(
        parse(&json!({"attributes.lang": {"eq": "en", "exists": true}, "not": {"attributes.lang": {"eq": "de"}}}))
            .unwrap(),
        Filter::All(vec![eq("en"), Filter::Test(field(), Test::Exists), Filter::Not(Box::new(eq("de")))])
    );
}

#[test]
fn keys_of_attributes_are_separated_by_dots_unless_escaped() {
    let keys = |name: &str| match parse(&json!({ name: {"exists": true} })).unwrap() {
        Filter::Test(Field::Attribute(keys), _) => keys,
        other => panic!("{other:?}"),
    };
    assert_eq!(keys("attributes.a.b"), ["a", "b"]);
    assert_eq!(keys(r"attributes.a\.b.c\\d"), ["a.b", r"c\d"]);
}

#[test]
fn unknown_fields_and_tests_are_refused_by_name() {
    for (filter, field) in [
        (json!({"colour": {"eq": "red"}}), "filter.colour"),
        (json!({"attributes": {"eq": "red"}}), "filter.attributes"),
        (json!({"title": {"like": "red"}}), "filter.title.like"),
        (json!({"and": [{"title": {"eq": "a"}}, {"or": [{"lang": {"eq": "a"}}]}]}), "filter.and[1].or[0].lang"),
    ] {
        assert_eq!(refused(&filter), (Code::UnknownField, field.to_owned()));
    }
}

#[test]
fn values_that_a_test_does_not_take_are_refused_by_their_place() {
    let mut deep = json!({"title": {"eq": "a"}});
    for _ in 0..9 {
        deep = json!({ "not": deep });
    }
    assert_eq!(refused(&deep).0, Code::InvalidField);
    let many: Vec<Value> = (0..65).map(|n| json!({"title": {"eq": n.to_string()}})).collect();
    for (filter, field) in [
        (json!([]), "filter"),
        (json!({}), "filter"),
        (json!({"and": []}), "filter.and"),
        (json!({"and": {"title": {"eq": "a"}}}), "filter.and"),
        (json!({"title": "a"}), "filter.title"),
        (json!({"title": {}}), "filter.title"),
        (json!({"title": {"eq": 1}}), "filter.title.eq"),
        (json!({"title": {"eq": "a\u{0}"}}), "filter.title.eq"),
        (json!({"attributes.a": {"eq": null}}), "filter.attributes.a.eq"),
        (json!({"attributes.a": {"eq": [1]}}), "filter.attributes.a.eq"),
        (json!({"attributes.a": {"gt": true}}), "filter.attributes.a.gt"),
        (json!({"attributes.a": {"exists": "yes"}}), "filter.attributes.a.exists"),
        (json!({"attributes.a": {"in": [1, {}]}}), "filter.attributes.a.in[1]"),
        (json!({"attributes.a": {"in": vec![1; 201]}}), "filter.attributes.a.in"),
        (json!({"attributes..a": {"eq": 1}}), "filter.attributes..a"),
        (json!({"size_bytes": {"gt": 1.5}}), "filter.size_bytes.gt"),
        (json!({"size_bytes": {"prefix": "1"}}), "filter.size_bytes.prefix"),
        (json!({"created_at": {"gt": "yesterday"}}), "filter.created_at.gt"),
        (json!({ "or": many }), "filter"),
    ] {
        assert_eq!(refused(&filter), (Code::InvalidField, field.to_owned()), "{filter}");
    }
}

#[test]
fn nothing_of_a_users_stands_in_the_statement() {
    let evil = "x' OR true; DROP TABLE users; --";
    let filter = json!({
        format!("attributes.{evil}"): {"eq": evil, "gt": evil, "prefix": evil, "exists": true, "in": [evil, 98_765]},
        "title": {"eq": evil, "prefix": evil, "lt": evil},
    });
    let condition = Condition::new(Some(&parse(&filter).unwrap()), 4);
    assert!(!condition.text.contains("DROP") && !condition.text.contains("98765"), "{}", condition.text);
    assert!(condition.text.contains("$5") && !condition.text.contains("$4"), "{}", condition.text);
    let places = condition.parameters().count();
    assert!(
        condition.text.contains(&format!("${}", places + 4)) && !condition.text.contains(&format!("${}", places + 5))
    );
}
