//! Filters, as the API's contract describes them. Two limits can not be said there: how deep a filter nests and how many
//! tests it has.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{self, AdditionalProperties, ArrayBuilder, KnownFormat, Object, OneOf, Schema, SchemaFormat, Type},
    },
};

use super::{
    Column,
    parse::{KEYS_MAX, TEXT_BYTES_MAX, VALUES_MAX},
};

/// Stands for a filter in the request's type, which takes any JSON: [`super::parse`] says more about what is wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FilterBody {}

const NAME: &str = "Filter";

impl ToSchema for FilterBody {
    fn name() -> Cow<'static, str> {
        NAME.into()
    }
}

impl PartialSchema for FilterBody {
    fn schema() -> RefOr<Schema> {
        let this = || RefOr::Ref(utoipa::openapi::Ref::from_schema_name(NAME));
        let filters = || ArrayBuilder::new().items(this()).min_items(Some(1));
        let mut filter = Object::builder()
            .description(Some(
                "Holds when all its members hold: fields with their tests, `and` and `or` of filters, `not`. \
                 Nested at most 8 deep, with at most 64 tests.",
            ))
            .property("and", filters())
            .property("or", filters())
            .property("not", this());
        let mut names = "and|or|not".to_owned();
        for (name, column) in Column::ALL {
            filter = filter.property(name, tests_of(column));
            names = format!("{names}|{name}");
        }
        let key = r"(\\[^\u0000]|[^.\\\u0000])+";
        let names = format!(r"^({names}|attributes\.{key}(\.{key}){{0,{}}})$", KEYS_MAX - 1);
        filter
            .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(tests(&attribute(), true)))))
            .property_names(Some(Schema::from(string().pattern(Some(names)))))
            .min_properties(Some(1))
            .examples([serde_json::json!({"attributes.lang": {"in": ["en", "de"]}, "size_bytes": {"lt": 1_000_000}})])
            .into()
    }
}

fn tests_of(column: Column) -> Schema {
    match column {
        Column::SourceUri | Column::Title | Column::MediaType => tests(&text().into(), true),
        Column::SizeBytes => {
            let format = SchemaFormat::KnownFormat(KnownFormat::Int64);
            tests(&Object::builder().schema_type(Type::Integer).format(Some(format)).into(), false)
        }
        Column::CreatedAt | Column::UpdatedAt => {
            tests(&string().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).into(), false)
        }
    }
}

/// The tests of a field with such values.
fn tests(value: &Schema, is_text: bool) -> Schema {
    let mut tests = Object::builder()
        .property("eq", value.clone())
        .property("ne", value.clone())
        .property("in", ArrayBuilder::new().items(RefOr::T(value.clone())).max_items(Some(VALUES_MAX)))
        .property("exists", Object::builder().schema_type(Type::Boolean));
    for operator in ["gt", "gte", "lt", "lte"] {
        tests = tests.property(operator, ordered(value));
    }
    if is_text {
        tests = tests.property("prefix", text());
    }
    tests.additional_properties(Some(AdditionalProperties::FreeForm(false))).min_properties(Some(1)).into()
}

/// Of an attribute's values, those that have an order.
fn ordered(value: &Schema) -> Schema {
    match value {
        Schema::OneOf(_) => OneOf::builder().item(text()).item(number()).into(),
        other => other.clone(),
    }
}

fn attribute() -> Schema {
    let boolean = Object::builder().schema_type(Type::Boolean);
    OneOf::builder().item(text()).item(number()).item(boolean).into()
}

fn number() -> schema::ObjectBuilder {
    Object::builder().schema_type(Type::Number)
}

fn string() -> schema::ObjectBuilder {
    Object::builder().schema_type(Type::String)
}

fn text() -> schema::ObjectBuilder {
    string().max_length(Some(TEXT_BYTES_MAX)).pattern(Some(r"^[^\u0000]*$"))
}
