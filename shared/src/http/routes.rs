//! A function's routes, and what the API's contract says of them.

use axum::{Router, handler::Handler, routing::MethodRouter};
use utoipa::{Path, openapi::OpenApi};
use utoipa_axum::{
    PathItemExt as _,
    router::{OpenApiRouter, UtoipaMethodRouter},
};

use crate::App;

/// Describes handlers. A function's start does not wait for it: descriptions are several times the work of routes.
type Describe = fn() -> UtoipaMethodRouter<App>;

/// The handlers of one path, made by [`routes!`](crate::routes), so that none is without its description.
pub struct Route {
    path: String,
    handlers: MethodRouter<App>,
    describe: Describe,
}

impl Route {
    #[doc(hidden)]
    pub fn new<P: Path, H: Handler<T, App>, T: 'static>(described: P, handler: &H, describe: Describe) -> Self {
        Self { path: P::path(), handlers: MethodRouter::new(), describe }.and(described, handler)
    }

    #[doc(hidden)]
    #[must_use]
    pub fn and<P: Path, H: Handler<T, App>, T: 'static>(mut self, _: P, handler: &H) -> Self {
        debug_assert_eq!(self.path, P::path(), "handlers of one route have one path");
        for method in P::methods() {
            self.handlers = self.handlers.on(method.to_method_filter(), handler.clone());
        }
        self
    }
}

/// Makes a [`Route`] of handlers that `utoipa::path` describes, with one path and a method each.
#[macro_export]
macro_rules! routes {
    ($first:ident $(, $other:ident)*) => {
        $crate::http::utoipa_axum::paste! {
            $crate::http::Route::new([<__path_ $first>], &$first, || $crate::http::utoipa_axum::routes!($first $(, $other)*))
                $(.and([<__path_ $other>], &$other))*
        }
    };
}

/// A function's routes.
#[derive(Default)]
pub struct Routes {
    router: Router<App>,
    descriptions: Vec<Describe>,
}

impl Routes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These and one more.
    #[must_use]
    pub fn routes(mut self, route: Route) -> Self {
        self.descriptions.push(route.describe);
        self.map(|router| router.route(&route.path, route.handlers))
    }

    /// Both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.descriptions.extend(other.descriptions);
        self.map(|router| router.merge(other.router))
    }

    /// The same routes with something around their handlers.
    #[must_use]
    pub fn map(self, change: impl FnOnce(Router<App>) -> Router<App>) -> Self {
        Self { router: change(self.router), descriptions: self.descriptions }
    }

    /// What the API's contract says of them.
    #[must_use]
    pub fn contract(self) -> OpenApi {
        let described = self.descriptions.into_iter().map(|describe| describe());
        described.fold(OpenApiRouter::new(), OpenApiRouter::routes).into_openapi()
    }

    pub(super) fn into_router(self) -> Router<App> {
        self.router
    }
}
