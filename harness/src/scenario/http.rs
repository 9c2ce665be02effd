//! Requests from outside the guest, as a user's browser would send them: the guest's CA checked, URL, SNI and Host as they are,
//! one cookie jar for a scenario, redirects followed only as far as the step says.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::cookie::Jar;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, Url};

use super::model::{Body, Request, Template, Variables, fill_json};

/// The largest body that is kept, bytes; a larger one is an error, not an answer that was cut.
const LARGEST_BODY: usize = 16 * 1024 * 1024;

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// The guest's public address and how to be sure of it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// `https://rave.local:3002`.
    pub url: Url,
    /// Where that name is to be found.
    pub address: IpAddr,
    /// Its certificate authority, PEM.
    pub ca: Vec<u8>,
}

/// A request that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The CA certificate is no certificate.
    #[error("the guest's CA certificate cannot be used")]
    Ca(#[source] reqwest::Error),
    /// The URL is no URL.
    #[error("`{url}` is not a URL: {why}")]
    Url {
        /// What was to be asked.
        url: String,
        /// Why not.
        why: String,
    },
    /// The method is none.
    #[error("`{0}` is not an HTTP method")]
    Method(String),
    /// Nothing came back.
    #[error("no answer from `{url}`")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The answer is too large.
    #[error("the answer of `{url}` is larger than {LARGEST_BODY} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
    },
}

/// One scenario's browser.
pub struct Browser {
    origin: Origin,
    jar: Arc<Jar>,
    /// By the number of redirects they follow; they share the jar.
    clients: Mutex<BTreeMap<u32, Client>>,
}

impl Browser {
    /// A browser with an empty jar.
    pub fn new(origin: Origin) -> Self {
        Self { origin, jar: Arc::new(Jar::default()), clients: Mutex::new(BTreeMap::new()) }
    }

    /// Sends one request and takes the whole answer, within `limit`.
    ///
    /// # Errors
    /// If it cannot be sent or there is no whole answer.
    pub async fn ask(&self, request: &Request, variables: &Variables, limit: Duration) -> Result<Response, HttpError> {
        let url = self.url(&request.url.fill(variables))?;
        let method = request.method.parse::<Method>().map_err(|_| HttpError::Method(request.method.clone()))?;
        let mut builder = self.client(request.follow)?.request(method, url.clone()).timeout(limit);
        let filled = |pairs: &[(String, Template)]| {
            pairs.iter().map(|(name, value)| (name.clone(), value.fill(variables))).collect::<Vec<_>>()
        };
        builder = builder.query(&filled(&request.query));
        for (name, value) in filled(&request.headers) {
            builder = builder.header(name, value);
        }
        if let Some((user, password)) = &request.basic {
            builder = builder.basic_auth(user.fill(variables), Some(password.fill(variables)));
        }
        builder = match &request.body {
            Body::Empty => builder,
            Body::Form(pairs) => builder.form(&filled(pairs)),
            Body::Json(value) => builder.json(&fill_json(value, variables)),
            Body::Text(text) => builder.body(text.fill(variables)),
        };
        let no_answer =
            |source: reqwest::Error| HttpError::NoAnswer { url: url.to_string(), source: source.without_url() };
        let mut response = builder.send().await.map_err(no_answer)?;
        let status = response.status().as_u16();
        let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let headers = response.headers().iter().map(header).collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST_BODY {
                return Err(HttpError::TooLarge { url: url.to_string() });
            }
        }
        Ok(Response { status, headers, body })
    }

    fn url(&self, text: &str) -> Result<Url, HttpError> {
        self.origin.url.join(text).map_err(|error| HttpError::Url { url: text.to_owned(), why: error.to_string() })
    }

    fn client(&self, follow: u32) -> Result<Client, HttpError> {
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = clients.get(&follow) {
            return Ok(client.clone());
        }
        let client = build_client(&self.origin, Arc::clone(&self.jar), follow).map_err(HttpError::Ca)?;
        clients.insert(follow, client.clone());
        Ok(client)
    }
}

fn build_client(origin: &Origin, jar: Arc<Jar>, follow: u32) -> Result<Client, reqwest::Error> {
    // Fails where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = if follow == 0 { Policy::none() } else { Policy::limited(follow as usize) };
    let host = origin.url.host_str().unwrap_or_default();
    Client::builder()
        .no_proxy()
        .tls_certs_only(Certificate::from_pem_bundle(&origin.ca)?)
        // The URL's own port is used, whatever the address says (reqwest's documentation of `resolve`).
        .resolve(host, SocketAddr::new(origin.address, 0))
        .cookie_provider(jar)
        .redirect(policy)
        .user_agent(concat!("rave-hermetic/", env!("CARGO_PKG_VERSION")))
        .build()
}
