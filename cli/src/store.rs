//! Object stores from what a person writes: a path, `file://…`, `s3://bucket/prefix` or the seed's `s3a://…`.
//!
//! S3 is configured by the usual `AWS_…` variables: key, secret, endpoint, region. Plain HTTP is allowed where the
//! endpoint says so. What lies under which key is the business of `event::layout`.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::client::{HttpConnector, HttpRequestBody, ReqwestConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ClientOptions, RetryConfig};

use crate::error::{Code, Failure, without_xml};

/// Where the bytes of a lake or of checkpoints lie, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A directory of this machine.
    Local(PathBuf),
    /// A prefix in a bucket.
    S3 { bucket: String, prefix: String },
}

impl Location {
    /// Reads a path or URI.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let refused = |why: &str| {
            Failure::usage(format!("`{text}` is not a place for objects: {why}"))
                .hint("use a directory, file:///directory, s3://bucket/prefix or s3a://bucket/prefix")
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.trim().is_empty() { Err(refused("it is empty")) } else { Ok(Self::Local(text.into())) };
        };
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::Local(rest.into())),
            "file" => Err(refused("a file URI has three slashes")),
            "s3" | "s3a" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return Err(refused("the bucket is missing"));
                }
                Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
            }
            other => Err(refused(&format!("the scheme `{other}` is not known"))),
        }
    }

    /// Opens it for writing; a directory is made.
    pub(crate) fn create(&self) -> Result<Store, Failure> {
        if let Self::Local(dir) = self {
            std::fs::create_dir_all(dir).map_err(|why| {
                Failure::new(Code::Failed, format!("could not make directory `{}`: {why}", dir.display()))
            })?;
        }
        self.open()
    }

    /// Opens it as it is.
    pub(crate) fn open(&self) -> Result<Store, Failure> {
        match self {
            Self::Local(dir) => local(dir),
            Self::S3 { bucket, prefix } => {
                let prefix = Path::parse(prefix)
                    .map_err(|why| Failure::usage(format!("`{self}` is not a place for objects: {why}")))?;
                Ok(Store { objects: Arc::new(s3(bucket)?), prefix })
            }
        }
    }

    /// The place one level or more below.
    pub(crate) fn below(&self, name: &str) -> Self {
        match self {
            Self::Local(dir) => Self::Local(dir.join(name)),
            Self::S3 { bucket, prefix } => {
                let prefix = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
                Self::S3 { bucket: bucket.clone(), prefix }
            }
        }
    }

    /// The place above, and the name of this one in it; none for a bucket or the root.
    pub(crate) fn split(&self) -> Option<(Self, String)> {
        match self {
            Self::Local(dir) => {
                let dir = std::path::absolute(dir).ok()?;
                let name = dir.file_name()?.to_str()?.to_owned();
                Some((Self::Local(dir.parent()?.to_owned()), name))
            }
            Self::S3 { prefix, .. } if prefix.is_empty() => None,
            Self::S3 { bucket, prefix } => {
                let (above, name) = prefix.rsplit_once('/').unwrap_or(("", prefix));
                Some((Self::S3 { bucket: bucket.clone(), prefix: above.to_owned() }, name.to_owned()))
            }
        }
    }

    /// The same place, named so that another process finds it.
    pub(crate) fn absolute(&self) -> Result<Self, Failure> {
        match self {
            Self::Local(dir) => Ok(Self::Local(std::path::absolute(dir)?)),
            place @ Self::S3 { .. } => Ok(place.clone()),
        }
    }

    /// Makes the bucket or the directory unless it is there; `true` when it was made.
    pub(crate) async fn make(&self) -> Result<bool, Failure> {
        match self {
            Self::Local(dir) => {
                let there = dir.is_dir();
                self.create()?;
                Ok(!there)
            }
            Self::S3 { bucket, .. } => make_bucket(bucket).await,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(dir) => write!(f, "{}", dir.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// An object store and the prefix below which everything of ours lies.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The store.
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// The prefix, empty for a directory.
    pub(crate) prefix: Path,
}

fn local(dir: &FilePath) -> Result<Store, Failure> {
    if !dir.is_dir() {
        return Err(Failure::usage(format!("there is no directory `{}`", dir.display())));
    }
    let objects = LocalFileSystem::new_with_prefix(dir)?;
    Ok(Store { objects: Arc::new(objects), prefix: Path::default() })
}

fn s3(bucket: &str) -> Result<AmazonS3, Failure> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig { max_retries: 6, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() });
    let setting = |builder: &AmazonS3Builder, key| builder.get_config_value(&key).filter(|value| !value.is_empty());
    if let Some(endpoint) = setting(&builder, AmazonS3ConfigKey::Endpoint) {
        builder = builder.with_allow_http(endpoint.starts_with("http://"));
        if setting(&builder, AmazonS3ConfigKey::AccessKeyId).is_none() {
            return Err(Failure::usage(format!("no key for bucket `{bucket}` at {endpoint}"))
                .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
    }
    builder.build().map_err(|why| Failure::of(Code::Usage, &why))
}

/// `object_store` has no call that makes a bucket. It can sign a `PUT` of the empty key, though, and S3 takes that
/// request for CreateBucket; the HTTP client that it brings along sends it.
async fn make_bucket(bucket: &str) -> Result<bool, Failure> {
    let failed = |why: String| Failure::new(Code::Unavailable, format!("could not make bucket `{bucket}`: {why}"));
    let url = s3(bucket)?.signed_url(Method::PUT, &Path::default(), Duration::from_secs(60)).await?;
    let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true))?;
    let region = std::env::var("AWS_REGION").unwrap_or_default();
    let request = Request::builder()
        .method(Method::PUT)
        .uri(url.as_str())
        .body(HttpRequestBody::from(bucket_configuration(&region)))
        .map_err(|why| failed(why.to_string()))?;
    let response = client.execute(request).await.map_err(|why| Failure::of(Code::Unavailable, &why))?;
    match response.status() {
        status if status.is_success() => Ok(true),
        StatusCode::CONFLICT => Ok(false),
        status => {
            let body = response.into_body().bytes().await.unwrap_or_default();
            let said = without_xml(&String::from_utf8_lossy(&body));
            Err(failed(format!("the store answered {status}: {said}"))
                .hint("check AWS_ENDPOINT_URL, the key and what it may do"))
        }
    }
}

/// Outside us-east-1, S3 wants the region in the body as well.
fn bucket_configuration(region: &str) -> String {
    if region.is_empty() || region == "us-east-1" {
        return String::new();
    }
    format!("<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_write_them() {
        let s3 = |bucket: &str, prefix: &str| Location::S3 { bucket: bucket.into(), prefix: prefix.into() };
        for (text, expected) in [
            ("lake", Location::Local("lake".into())),
            ("file:///srv/lake", Location::Local("/srv/lake".into())),
            ("s3://raw-data", s3("raw-data", "")),
            ("s3a://raw-data/topics/OpenSeaRawEvents", s3("raw-data", "topics/OpenSeaRawEvents")),
            (
                "s3a://processed-data/checkpoints/topics/OpenSeaEnrichedEvents/",
                s3("processed-data", "checkpoints/topics/OpenSeaEnrichedEvents"),
            ),
        ] {
            assert_eq!(Location::parse(text).expect(text), expected);
        }
        for text in ["", "file://lake", "s3://", "gs://bucket"] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_place_below_keeps_its_kind() {
        assert_eq!(Location::parse("s3a://b/p/").expect("s3").below("x").to_string(), "s3://b/p/x");
        assert_eq!(Location::parse("s3://b").expect("s3").below("x").to_string(), "s3://b/x");
        assert_eq!(Location::parse("data").expect("dir").below("x").to_string(), "data/x");
    }

    #[test]
    fn a_topic_is_split_off_its_lake() {
        let split =
            |text: &str| Location::parse(text).expect(text).split().map(|(above, name)| (above.to_string(), name));
        assert_eq!(
            split("s3a://raw-data/topics/OpenSeaRawEvents"),
            Some(("s3://raw-data/topics".into(), "OpenSeaRawEvents".into()))
        );
        assert_eq!(split("s3://raw-data/x"), Some(("s3://raw-data".into(), "x".into())));
        assert_eq!(split("/lake/topics/t/"), Some(("/lake/topics".into(), "t".into())));
        assert_eq!(split("s3://raw-data"), None);
    }
}
