//! Which images a pod needs credentials for although they are present (upstream: `image_pull_policies.go`).

/// `imagePullCredentialsVerificationPolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VerificationPolicy {
    /// Whoever names a present image gets it.
    NeverVerify,
    /// Images that the kubelet has pulled are for those who could have pulled them; others are for all.
    #[default]
    NeverVerifyPreloadedImages,
    /// All but these images are for those who could pull them.
    NeverVerifyAllowlistedImages(Allowlist),
    /// All images are.
    AlwaysVerify,
}

/// `preloadedImagesVerificationAllowlist`: repositories, and beginnings of repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowlist {
    exact: Vec<String>,
    prefixes: Vec<String>,
}

impl VerificationPolicy {
    /// The policy of that name; the list is for the one that has one. The error is one line.
    pub fn new(name: &str, allowlist: &[String]) -> Result<Self, String> {
        match name {
            "NeverVerify" => Ok(Self::NeverVerify),
            "NeverVerifyPreloadedImages" => Ok(Self::NeverVerifyPreloadedImages),
            "NeverVerifyAllowlistedImages" => {
                Allowlist::new(allowlist).map(Self::NeverVerifyAllowlistedImages)
            }
            "AlwaysVerify" => Ok(Self::AlwaysVerify),
            other => Err(format!("{other:?} is not an image pull credentials verification policy")),
        }
    }

    /// Whether a pod that names `image` has to show that it may have it (`RequireCredentialVerificationForImage`).
    pub(super) fn requires_verification(&self, image: &str, pulled_by_kubelet: bool) -> bool {
        match self {
            Self::NeverVerify => false,
            Self::NeverVerifyPreloadedImages => pulled_by_kubelet,
            Self::NeverVerifyAllowlistedImages(list) => !list.matches(image),
            Self::AlwaysVerify => true,
        }
    }
}

impl Allowlist {
    /// Reads patterns: a repository, or the beginning of one with `/*` after it (`getAllowlistImagePattern`).
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let mut list = Self::default();
        for pattern in patterns {
            if pattern.trim() != pattern {
                return Err(format!("{pattern:?} has spaces around it"));
            }
            let prefix = pattern.strip_suffix('*').filter(|prefix| prefix.ends_with('/'));
            let name = prefix.unwrap_or(pattern);
            if name.contains('*') {
                return Err(format!("{pattern:?} is not a valid wildcard pattern: only `/*` at the end is"));
            }
            match prefix {
                Some("/") => return Err(format!("{pattern:?} names no registry")),
                Some(prefix) => list.prefixes.push(prefix.to_owned()),
                None if name.is_empty() => return Err("a pattern is empty".to_owned()),
                None if trim_image_tag_digest(name) != name => {
                    return Err(format!("{pattern:?} has a tag or a digest, which are not compared"));
                }
                None => list.exact.push(name.to_owned()),
            }
        }
        Ok(list)
    }

    fn matches(&self, image: &str) -> bool {
        let name = trim_image_tag_digest(image);
        self.exact.iter().any(|exact| exact == name)
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

/// An image as the pod names it, without tag and digest (`trimImageTagDigest`).
pub(super) fn trim_image_tag_digest(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(patterns: &[&str]) -> Result<VerificationPolicy, String> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        VerificationPolicy::new("NeverVerifyAllowlistedImages", &patterns)
    }

    #[test]
    fn policies_decide_as_upstream_s() {
        let allowed = allow(&["test.io/test/image", "test.io/other/*"]).unwrap();
        let policy = |name: &str| VerificationPolicy::new(name, &[]).unwrap();
        for (policy, image, pulled_by_kubelet, required) in [
            (policy("NeverVerify"), "a", true, false),
            (policy("AlwaysVerify"), "a", false, true),
            (policy("NeverVerifyPreloadedImages"), "a", false, false),
            (policy("NeverVerifyPreloadedImages"), "a", true, true),
            (allowed.clone(), "test.io/test/image:v1", true, false),
            (allowed.clone(), "test.io/test/image@sha256:00", false, false),
            (allowed.clone(), "test.io/test/image2", false, true),
            (allowed.clone(), "test.io/other/a/b:v1", true, false),
            (allowed.clone(), "test.io/other", true, true),
            (allowed, "image", false, true),
        ] {
            assert_eq!(
                policy.requires_verification(image, pulled_by_kubelet),
                required,
                "{policy:?} {image}"
            );
        }
        assert!(VerificationPolicy::new("Sometimes", &[]).is_err());
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for (pattern, reason) in [
            (" a", "spaces"),
            ("", "empty"),
            ("/*", "names no registry"),
            ("a*", "not a valid wildcard"),
            ("*/a", "not a valid wildcard"),
            ("a/*/*", "not a valid wildcard"),
            ("a:v1", "tag or a digest"),
            ("a@sha256:00", "tag or a digest"),
        ] {
            assert!(allow(&[pattern]).expect_err(pattern).contains(reason), "{pattern}");
        }
        assert!(allow(&["localhost:5000/a", "localhost:5000/*"]).is_ok());
    }
}
