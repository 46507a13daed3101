//! HTTP as a hub speaks it: the token goes to the hub alone, every wait has an end, and what may pass is tried again.
//!
//! What is asked is in `download.rs`, files come in `blob.rs`.

use std::thread;
use std::time::Duration;

use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RETRY_AFTER};
use ureq::http::{Method, Request, Response, Uri};
use ureq::{Agent, Body, Error};

use super::{Hub, HubError};

/// The public hub.
const PUBLIC: &str = "https://huggingface.co";

/// How long the first answer may take: name, connection, encryption and one small reply.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// How long a download may be silent unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise.
const SILENCE: Duration = Duration::from_mins(1);

/// How often something is tried that gets no further.
pub(super) const TRIES: u32 = 5;

/// The wait before the second try; it doubles with every further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait that a hub may ask for; beyond that the user decides.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Redirects from one question.
const REDIRECTS: usize = 10;

/// The most bytes of an answer that is no file. The list of a model's files takes some 100 bytes for each.
const MOST_JSON: u64 = 1 << 26;

/// How far redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Follow {
    /// Within the hub: what is elsewhere is told by the hub's own answer.
    Hub,
    /// Anywhere, without the token.
    Anywhere,
}

/// What to do after a failed try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Next {
    /// Try again after a wait.
    Wait(Duration),
    /// It would fail again, or not soon.
    GiveUp,
}

/// A connection to one hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    silence: Duration,
}

impl Client {
    /// # Errors
    /// [`HubError::Setting`] for an address or a token that cannot be one.
    pub(super) fn new(hub: &Hub) -> Result<Self, HubError> {
        let endpoint = hub.endpoint.clone().unwrap_or_else(|| PUBLIC.to_owned());
        if !is_address(&endpoint) {
            let problem = format!("is {endpoint:?}, which is no address: https://NAME, or unset for {PUBLIC}");
            return Err(HubError::Setting { variable: "HF_ENDPOINT", problem });
        }
        if hub.token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            let problem = "gives no token: it has spaces, line breaks or letters that are not ASCII".to_owned();
            let variable = "HF_TOKEN (or HUGGING_FACE_HUB_TOKEN, or the token's file)";
            return Err(HubError::Setting { variable, problem });
        }
        let silence = hub.download_timeout.unwrap_or(SILENCE);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(FIRST_ANSWER))
            .timeout_connect(Some(FIRST_ANSWER))
            .timeout_recv_response(Some(FIRST_ANSWER.max(silence)))
            .timeout_per_read(Some(silence))
            .user_agent(concat!("mlx-transformers/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { agent, endpoint, token: hub.token.clone(), silence })
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The hub's address, without a slash at its end.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Why a request failed, in words.
    pub(super) fn reason(&self, error: &Error) -> String {
        match error {
            Error::Timeout(ureq::Timeout::PerRead) => format!("no answer for {} seconds", self.silence.as_secs_f32()),
            Error::Timeout(_) => format!("no answer for {} seconds", FIRST_ANSWER.as_secs()),
            error => error.to_string(),
        }
    }

    /// The answer to a question about a model, as text. A refusal is an answer too: its status comes with it.
    pub(super) fn ask(&self, url: &str) -> Result<(Response<()>, Vec<u8>), Error> {
        let mut tries = Tries::default();
        loop {
            let response = self.send_once(&Method::GET, url, &[], Some(FIRST_ANSWER));
            let response =
                response.and_then(|response| self.follow(response, &Method::GET, url, &[], Follow::Anywhere));
            match response {
                Ok(response) if passes(response.status().as_u16()) => match tries.next(Some(&response)) {
                    Next::Wait(wait) => thread::sleep(wait),
                    Next::GiveUp => return Ok((response.map(drop), Vec::new())),
                },
                Ok(response) => {
                    let (parts, mut body) = response.into_parts();
                    let text = body.with_config().limit(MOST_JSON).read_to_vec()?;
                    return Ok((Response::from_parts(parts, ()), text));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One try of a request, redirects followed.
    pub(super) fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, String)],
        follow: Follow,
    ) -> Result<Response<Body>, Error> {
        let response = self.send_once(method, url, headers, None)?;
        self.follow(response, method, url, headers, follow)
    }

    fn follow(
        &self,
        mut response: Response<Body>,
        method: &Method,
        url: &str,
        headers: &[(&str, String)],
        follow: Follow,
    ) -> Result<Response<Body>, Error> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS {
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let next = location.and_then(|location| join(&url, location)).ok_or(Error::RedirectFailed)?;
            if follow == Follow::Hub && !self.is_hub(&next) {
                return Ok(response);
            }
            url = next;
            response = self.send_once(method, &url, headers, None)?;
        }
        Err(Error::TooManyRedirects)
    }

    fn send_once(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, String)],
        whole: Option<Duration>,
    ) -> Result<Response<Body>, Error> {
        let mut request = Request::builder().method(method).uri(url);
        // Packed answers have other lengths than the files.
        request = request.header(ACCEPT_ENCODING, "identity");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(url)) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request =
            self.agent.configure_request(request.body(())?).timeout_recv_response(whole.or(Some(self.silence)));
        self.agent.run(request.build())
    }

    fn is_hub(&self, url: &str) -> bool {
        origin(url).is_some_and(|found| Some(found) == origin(&self.endpoint))
    }
}

/// Counts tries that got no further.
#[derive(Debug, Default)]
pub(super) struct Tries {
    failed: u32,
}

impl Tries {
    /// Forgets what failed: something has come.
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }

    /// What to do after one more failure; `response` if there was an answer, which may say how long to wait.
    pub(super) fn next<T>(&mut self, response: Option<&Response<T>>) -> Next {
        self.failed += 1;
        if self.failed >= TRIES {
            return Next::GiveUp;
        }
        match response.and_then(retry_after) {
            Some(asked) if asked > LONGEST_WAIT => Next::GiveUp,
            Some(asked) => Next::Wait(asked),
            None => Next::Wait(FIRST_WAIT * 2_u32.pow(self.failed - 1)),
        }
    }
}

/// Whether a refusal with this status may be over soon.
pub(super) fn passes(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// How long the hub asks to wait, where it says so in seconds.
pub(super) fn retry_after<T>(response: &Response<T>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether requests can be sent there at all.
fn is_address(endpoint: &str) -> bool {
    let plain = endpoint.starts_with("http://") || endpoint.starts_with("https://");
    plain && endpoint.is_ascii() && endpoint.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|h| !h.is_empty()))
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<&str> {
    let host = url.find("://")? + 3;
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |end| host + end);
    Some(&url[..end])
}

/// Where `location` leads from `url`.
fn join(url: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{}//{rest}", url.split("//").next()?));
    }
    location.starts_with('/').then(|| Some(format!("{}{location}", origin(url)?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from = "https://hub.example/a/b?c";
        assert_eq!(join(from, "/x").unwrap(), "https://hub.example/x");
        assert_eq!(join(from, "//cdn.example/x").unwrap(), "https://cdn.example/x");
        assert_eq!(join(from, "http://cdn.example/x").unwrap(), "http://cdn.example/x");
        assert_eq!((join(from, "x"), join(from, "file:///etc/passwd"), join("x", "/y")), (None, None, None));
    }

    #[test]
    fn the_token_is_for_one_origin() {
        let hub = Hub { endpoint: Some("https://hub.example".into()), ..Hub::default() };
        let client = Client::new(&hub).unwrap();
        assert!(client.is_hub("https://hub.example/x") && client.is_hub("https://hub.example"));
        for other in
            ["http://hub.example/x", "https://hub.example.evil/x", "https://hub.example:444/x", "https://x@hub.example"]
        {
            assert!(!client.is_hub(other), "{other}");
        }
    }

    #[test]
    fn waits_double_and_end() {
        let mut tries = Tries::default();
        let next = |tries: &mut Tries| tries.next::<()>(None);
        assert_eq!(next(&mut tries), Next::Wait(FIRST_WAIT));
        assert_eq!(next(&mut tries), Next::Wait(FIRST_WAIT * 2));
        tries.reset();
        assert_eq!(next(&mut tries), Next::Wait(FIRST_WAIT));
        let asked = |seconds: &str| Response::builder().header(RETRY_AFTER, seconds).body(()).unwrap();
        assert_eq!(tries.next(Some(&asked("7"))), Next::Wait(Duration::from_secs(7)));
        assert_eq!(tries.next(Some(&asked("3600"))), Next::GiveUp);
        tries.reset();
        let waits = std::iter::from_fn(|| Some(next(&mut tries))).take_while(|next| *next != Next::GiveUp);
        assert_eq!(waits.count() as u32, TRIES - 1);
    }
}
