//! What the handlers' own annotations do not say of the service: its name, who may call, and that anything may fail.

use utoipa::openapi::{
    Content, InfoBuilder, LicenseBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

/// Completes the generated document.
pub fn complete(document: &mut OpenApi) {
    document.info = InfoBuilder::new()
        .title("finetuned")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "A fine-tuning service in the wire format of OpenAI's fine-tuning API, with additions of its own.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("api-key"))));
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten();
        for operation in operations {
            if path.starts_with("/v1/") {
                let no_scopes: [&str; 0] = [];
                operation.security = Some(vec![
                    SecurityRequirement::new("bearer", no_scopes),
                    SecurityRequirement::new("api_key", no_scopes),
                ]);
            }
            let body = Content::new(Some(RefOr::Ref(Ref::from_schema_name("ErrorResponse"))));
            let error = ResponseBuilder::new().description("Any error").content("application/json", body).build();
            operation.responses.responses.insert("default".to_owned(), error.into());
        }
    }
}
