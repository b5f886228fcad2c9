//! What AWS and its stand-ins send, word for word where it is recorded.
#![allow(clippy::unwrap_used, reason = "tests: what fails here fails the test")]

use serde_json::json;

use super::*;

fn read_file(text: &str) -> Vec<Notice> {
    read(&serde_json::from_str(text).unwrap()).unwrap()
}

fn notice(kind: Kind, key: &str, version: Option<&str>, sequencer: &str) -> Notice {
    Notice {
        bucket: "inbox".to_owned(),
        key: key.to_owned(),
        version: version.map(str::to_owned),
        sequencer: Sequencer::new(sequencer),
        kind,
    }
}

#[test]
fn recorded_notifications_of_s3_are_read() {
    let put = read_file(include_str!("../../tests/fixtures/events/s3-put.json"));
    let expected = Notice {
        bucket: "sourcebucket".to_owned(),
        key: "Happy Face.jpg".to_owned(),
        version: Some("version".to_owned()),
        sequencer: Sequencer::new("Happy Sequencer"),
        kind: Kind::Created,
    };
    assert_eq!(put, [expected]);
    let delete = read_file(include_str!("../../tests/fixtures/events/s3-delete.json"));
    assert_eq!(delete, [notice(Kind::Removed, "a/red flower.jpg", None, "0A1B2C3D4E5F678901")]);
    assert_eq!(read_file(include_str!("../../tests/fixtures/events/s3-test.json")), []);
}

#[test]
fn recorded_events_of_eventbridge_are_read_and_their_keys_are_not_decoded() {
    let created = read_file(include_str!("../../tests/fixtures/events/eventbridge-created.json"));
    assert_eq!(
        created,
        [notice(Kind::Created, "a+b %41.txt", Some("IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"), "617f08299329d189")]
    );
    let hidden = read_file(include_str!("../../tests/fixtures/events/eventbridge-deleted.json"));
    assert_eq!(
        hidden,
        [notice(Kind::Hidden, "example-key", Some("1QW9g1Z99LUNbvaaYVpW9xDlOLU.qxgF"), "617f0837b476e463")]
    );
}

#[test]
fn what_stand_ins_leave_out_is_not_missed() {
    // Neither time nor identity, no version, `/` encoded, the event's name with a prefix.
    let event = json!({"Records": [{
        "eventName": "s3:ObjectCreated:CompleteMultipartUpload",
        "s3": {"bucket": {"name": "inbox"}, "object": {"key": "kb%2Fa%2Bb+c.txt", "sequencer": "01"}},
    }]});
    assert_eq!(read(&event).unwrap(), [notice(Kind::Created, "kb/a+b c.txt", None, "01")]);
    // As moto 5.2.1 sends them, also without a sequencer.
    let put = read_file(include_str!("../../tests/fixtures/events/moto-put.json"));
    assert_eq!(put, [notice(Kind::Created, "01a2115b-db66-77bb-9541-8d63fe3b67cd/a b+ü.txt", None, "")]);
    assert_eq!(read_file(include_str!("../../tests/fixtures/events/moto-test.json")), []);
}

#[test]
fn every_kind_is_what_it_means_for_the_document() {
    let kind = |name: &str| {
        let object = json!({"key": "k", "versionId": "null"});
        let event = json!({"Records": [{"eventName": name, "s3": {"bucket": {"name": "inbox"}, "object": object}}]});
        let notices = read(&event).unwrap();
        assert!(notices.iter().all(|notice| notice.version.is_none() && notice.sequencer.is_none()));
        notices.first().map(|notice| notice.kind)
    };
    for name in ["ObjectCreated:Put", "ObjectCreated:Copy", "ObjectRestore:Completed"] {
        assert_eq!(kind(name), Some(Kind::Created), "{name}");
    }
    for name in ["ObjectRemoved:Delete", "LifecycleExpiration:Delete"] {
        assert_eq!(kind(name), Some(Kind::Removed), "{name}");
    }
    for name in ["ObjectRemoved:DeleteMarkerCreated", "LifecycleExpiration:DeleteMarkerCreated"] {
        assert_eq!(kind(name), Some(Kind::Hidden), "{name}");
    }
    for name in ["ObjectTagging:Put", "ObjectAcl:Put", "ObjectRestore:Post", "ReducedRedundancyLostObject"] {
        assert_eq!(kind(name), None, "{name}");
    }
}

#[test]
fn an_envelope_of_sns_is_opened() {
    let inner = include_str!("../../tests/fixtures/events/s3-put.json");
    let notices = read(&json!({"Type": "Notification", "Message": inner})).unwrap();
    assert_eq!(notices.len(), 1);
}

#[test]
fn sequencers_are_ordered_after_the_shorter_is_padded_on_the_right() {
    let order =
        ["0055AED6DCD9", "0055AED6DCD90281E5", "0055aed6dcd90281e6", "0056"].map(|text| Sequencer::new(text).unwrap());
    assert!(order.is_sorted());
    assert_eq!(Sequencer::new("0A"), Sequencer::new("0a00"));
    assert_eq!((Sequencer::new(""), Sequencer::new(&"0".repeat(65))), (None, None));
}

#[test]
fn what_is_no_event_is_an_error() {
    for event in [json!({}), json!([]), json!("x"), json!({"Records": [{}]}), json!({"source": "aws.s3"})] {
        assert!(read(&event).is_err(), "{event}");
    }
}
