//! The OpenID provider, by the crate `openidconnect`: found by its discovery document, asked with PKCE, its ID tokens verified.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use openidconnect::core::{CoreClient, CoreGenderClaim, CoreProviderMetadata, CoreResponseType};
use openidconnect::{
    AsyncHttpClient, AuthenticationFlow, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce, OAuth2TokenResponse as _,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse as _, UserInfoClaims, url::Url,
};
use tokio::sync::Mutex;

use crate::login::LoginError;
use crate::settings::Settings;
use crate::user::{Claims, Groups};

type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// Nothing here waits longer for the provider.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The provider, and who we are to it.
pub struct Provider {
    issuer: IssuerUrl,
    client_id: ClientId,
    client_secret: ClientSecret,
    redirect: RedirectUrl,
    http: Http,
    /// What discovery said. It is asked for at the first login, and again after one that failed: the provider may be younger than it.
    found: Mutex<Option<Client>>,
}

/// A login that has begun.
pub struct Begun {
    /// Where the browser goes.
    pub url: Url,
    /// What it keeps until it is back.
    pub verifier: PkceCodeVerifier,
}

impl Provider {
    /// Prepares for asking; the provider need not be there yet.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            issuer: settings.issuer.clone(),
            client_id: settings.client_id.clone(),
            client_secret: ClientSecret::new(settings.client_secret.expose().to_owned()),
            redirect: settings.redirect.clone(),
            http: Http::new(certificates(&settings.ca)?)?,
            found: Mutex::new(None),
        })
    }

    /// Begins a login.
    pub async fn begin(&self, state: CsrfToken, nonce: Nonce) -> Result<Begun, LoginError> {
        let client = self.client().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let (url, ..) = client
            .authorize_url(flow, || state, || nonce)
            .add_scopes(["profile", "email"].map(|scope| Scope::new(scope.to_owned())))
            .set_pkce_challenge(challenge)
            .url();
        Ok(Begun { url, verifier })
    }

    /// Redeems the code and believes what it should.
    pub async fn finish(&self, code: String, verifier: PkceCodeVerifier, nonce: &Nonce) -> Result<Claims, LoginError> {
        let claims = self.ask(code, verifier, nonce).await;
        if claims.is_err() {
            *self.found.lock().await = None;
        }
        claims
    }

    async fn ask(&self, code: String, verifier: PkceCodeVerifier, nonce: &Nonce) -> Result<Claims, LoginError> {
        let client = self.client().await?;
        let exchange = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| LoginError::Unavailable(text(&error)))?;
        let tokens = exchange
            .set_pkce_verifier(verifier)
            .request_async(&self.http)
            .await
            .map_err(|error| LoginError::Exchange(text(&error)))?;
        let token = tokens.id_token().ok_or_else(|| LoginError::IdToken("there is none".to_owned()))?;
        let verified =
            token.claims(&client.id_token_verifier(), nonce).map_err(|error| LoginError::IdToken(text(&error)))?;
        let request = client
            .user_info(tokens.access_token().clone(), Some(verified.subject().clone()))
            .map_err(|error| LoginError::UserInfo(text(&error)))?;
        let info: UserInfoClaims<Groups, CoreGenderClaim> =
            request.request_async(&self.http).await.map_err(|error| LoginError::UserInfo(text(&error)))?;
        Ok(Claims {
            subject: verified.subject().to_string(),
            login: verified.preferred_username().map(|login| login.to_string()),
            name: verified.name().and_then(|names| names.get(None)).map(|name| name.to_string()),
            email: verified.email().map(|email| email.to_string()),
            email_verified: verified.email_verified() == Some(true),
            groups: info.additional_claims().clone(),
        })
    }

    async fn client(&self) -> Result<Client, LoginError> {
        let mut found = self.found.lock().await;
        if let Some(client) = &*found {
            return Ok(client.clone());
        }
        let metadata = CoreProviderMetadata::discover_async(self.issuer.clone(), &self.http)
            .await
            .map_err(|error| LoginError::Unavailable(text(&error)))?;
        let client =
            CoreClient::from_provider_metadata(metadata, self.client_id.clone(), Some(self.client_secret.clone()))
                .set_redirect_uri(self.redirect.clone());
        Ok(found.insert(client).clone())
    }
}

/// An error with its causes, for the journal.
fn text(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<reqwest::Certificate>> {
    let what = "the file that `ca` names holds no certificate in PEM";
    let found = reqwest::Certificate::from_pem_bundle(pem).context(what)?;
    ensure!(!found.is_empty(), what);
    Ok(found)
}

/// How the crate asks: with our certificate authority and no other, following no redirect.
struct Http(reqwest::Client);

impl Http {
    fn new(authorities: Vec<reqwest::Certificate>) -> Result<Self, reqwest::Error> {
        // Fails only if one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .tls_certs_only(authorities)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map(Self)
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = openidconnect::HttpClientError<reqwest::Error>;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Self::Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let request =
                request.try_into().map_err(|source: reqwest::Error| Self::Error::Reqwest(Box::new(source)))?;
            let failed = |source: reqwest::Error| Self::Error::Reqwest(Box::new(source.without_url()));
            let answer = self.0.execute(request).await.map_err(failed)?;
            let mut response = HttpResponse::new(Vec::new());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            *response.body_mut() = answer.bytes().await.map_err(failed)?.to_vec();
            Ok(response)
        })
    }
}

#[cfg(test)]
impl Provider {
    /// One that never answers: nobody listens on port 1.
    pub fn away() -> Self {
        let url = |path: &str| format!("https://127.0.0.1:1/{path}");
        Self {
            issuer: IssuerUrl::new(url("gitlab")).unwrap(),
            client_id: ClientId::new("grafana".to_owned()),
            client_secret: ClientSecret::new("secret".to_owned()),
            redirect: RedirectUrl::new(url("grafana/login/gitlab")).unwrap(),
            http: Http::new(Vec::new()).unwrap(),
            found: Mutex::new(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let refused = |pem: &[u8]| {
            assert_eq!(
                certificates(pem).unwrap_err().to_string(),
                "the file that `ca` names holds no certificate in PEM"
            )
        };
        refused(b"");
        refused(b"a certificate");
    }
}
