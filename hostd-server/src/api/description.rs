//! The OpenAPI description, made of the routes.

use super::{operations, route::Needs};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// Statuses that every operation may answer with.
const REFUSALS: &[(&str, &str)] = &[
    ("400", "The request does not fit"),
    ("401", "Nobody is logged in"),
    ("403", "It is not allowed"),
    ("404", "There is no such thing"),
    ("405", "That cannot be done to this"),
    ("409", "Something stands in the way"),
    ("412", "It was changed meanwhile"),
    ("413", "The body is too large"),
    ("415", "The body is of another type"),
    ("429", "Too many attempts"),
    ("503", "It cannot be done now"),
];

fn error(description: &str) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Problem" } } } })
}

/// Where schemas of other schemas stand.
fn generator() -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    settings.into_generator()
}

/// The description as it stands in the tree, to the last line's end.
#[must_use]
pub fn describe() -> String {
    let mut generator = generator();
    let mut paths: Map<String, Value> = Map::new();
    generator.subschema_for::<crate::model::Problem>();
    for route in operations::routes() {
        let shape = (route.shape)(&mut generator);
        let mut parameters: Vec<Value> = Vec::new();
        for name in route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let schema = if name == "path*" {
                json!({ "type": "string", "minLength": 1, "maxLength": 512, "pattern": "^[A-Za-z0-9_+-][A-Za-z0-9._ +-]*$" })
            } else {
                json!({ "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$" })
            };
            parameters.push(json!({ "name": name.trim_end_matches('*'), "in": "path", "required": true, "schema": schema }));
        }
        if let Some(query) = shape.query {
            // A query's type is only used here: its fields are the parameters.
            let value = resolve(&generator, query.to_value());
            let required: Vec<&str> = value["required"]
                .as_array()
                .map(|names| names.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default();
            for (name, schema) in value["properties"].as_object().into_iter().flatten() {
                let mut schema = resolve(&generator, schema.clone());
                let text = schema["description"].as_str().unwrap_or("").to_string();
                simplify(&mut schema);
                parameters.push(json!({ "name": name, "in": "query", "required": required.contains(&name.as_str()), "description": text, "schema": schema }));
            }
        }
        let mut operation = json!({
            "operationId": route.name,
            "summary": route.summary,
            "tags": [route.path.split('/').nth(1).unwrap_or("host")],
            "parameters": parameters,
        });
        if let Needs::Privilege(privilege) = route.needs {
            operation["description"] = format!("Needs the privilege {privilege}.").into();
            operation["x-privilege"] = privilege.into();
        }
        if route.needs == Needs::Nothing {
            operation["security"] = json!([]);
        }
        if let Some((kind, schema)) = shape.body {
            operation["requestBody"] = json!({ "required": kind == "application/json", "content": { kind: { "schema": schema } } });
        }
        let mut responses = Map::new();
        responses.insert(
            shape.status.to_string(),
            match shape.answer {
                Some((kind, schema)) => json!({ "description": "Done", "content": { kind: { "schema": schema } } }),
                None => json!({ "description": "Done" }),
            },
        );
        for (status, _) in REFUSALS {
            responses.insert((*status).into(), json!({ "$ref": format!("#/components/responses/{status}") }));
        }
        if route.name == "openConsole" || route.name == "followChanges" {
            responses.insert("101".into(), json!({ "description": "A WebSocket follows" }));
            responses.insert("426".into(), error("It is a WebSocket"));
        }
        if route.name == "openConsole" {
            responses.remove("200");
        }
        if route.name == "downloadFile" {
            responses.insert(
                "206".into(),
                json!({ "description": "A part", "content": { "application/octet-stream": {} } }),
            );
            responses.insert("416".into(), error("That part is not there"));
        }
        operation["responses"] = responses.into();
        let path = format!("/api/v1{}", route.path.replace("*}", "}"));
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[route.method.name().to_lowercase()] = operation;
    }
    let schemas: Map<String, Value> = generator
        .take_definitions(true)
        .into_iter()
        .filter(|(name, _)| !name.ends_with("Query"))
        .collect();
    let whole = json!({
        "openapi": "3.1.0",
        "info": { "title": "Tessera", "version": "1", "description": "Management of a Tessera host. Lists come in pages; long work is a task; ETag and If-Match keep updates from getting lost.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" } },
        "security": [{ "bearer": [] }, { "cookie": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": REFUSALS.iter().map(|(status, text)| ((*status).to_string(), error(text))).collect::<Map<String, Value>>(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A session's token, or an API key" },
                "cookie": { "type": "apiKey", "in": "cookie", "name": super::COOKIE, "description": "A browser's session; writes carry X-CSRF-Token" },
            },
        },
    });
    let mut text = serde_json::to_string_pretty(&whole).unwrap_or_default();
    text.push('\n');
    text
}

/// Follows a reference.
fn resolve(generator: &SchemaGenerator, schema: Value) -> Value {
    let target = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    match target.and_then(|name| generator.definitions().get(name)) {
        Some(found) => found.clone(),
        None => schema,
    }
}

/// A query has no null: what may be null may be left out.
fn simplify(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("description");
    if let Some(Value::Array(types)) = object.get("type") {
        let kept: Vec<Value> = types.iter().filter(|one| *one != "null").cloned().collect();
        if let [only] = &kept[..] {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.remove("anyOf") {
        if let Some(Value::Object(first)) = choices.into_iter().find(|one| one["type"] != "null") {
            object.extend(first);
        }
    }
}
