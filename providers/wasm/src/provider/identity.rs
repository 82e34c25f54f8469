//! Who a container is where files are concerned.

use std::io;

use coracle_provider::LinuxSecurityContext;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::set_thread_groups;

/// The user and the groups that a container's files are opened and made with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// A user that a container cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("its image wants the user {0:?} by name, and WebAssembly has no /etc/passwd; set runAsUser")]
    Name(String),
    #[error("{0} is not the number of a user or a group")]
    Number(i64),
}

impl Identity {
    /// Who a container is; none if that is whoever this process is. `image_user` is what the image's configuration says:
    /// `user` or `user:group`. Only root can be somebody else, and only root has to be: what another user may not
    /// touch, its guests may not either.
    pub(super) fn of(
        security: &LinuxSecurityContext,
        image_user: &str,
    ) -> Result<Option<Self>, IdentityError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let wanted = Self::wanted(security, image_user)?;
        Ok(Some(wanted).filter(|identity| *identity != Self { uid: 0, gid: 0, groups: Vec::new() }))
    }

    fn wanted(security: &LinuxSecurityContext, image_user: &str) -> Result<Self, IdentityError> {
        let number = |number: i64| u32::try_from(number).map_err(|_| IdentityError::Number(number));
        let (user, group) = image_user.split_once(':').unwrap_or((image_user, ""));
        let user = if security.run_as_username.is_empty() { user } else { &security.run_as_username };
        let named = |name: &str| match name {
            "" | "root" => Ok(0),
            name => name.parse::<u32>().map_err(|_| IdentityError::Name(name.to_owned())),
        };
        // The group of the image belongs to its user, whom the kubelet names again.
        let (uid, own_group) = match security.run_as_user.map(number).transpose()? {
            Some(other) if named(user) != Ok(other) => (other, 0),
            _ => (named(user)?, named(group)?),
        };
        let gid = security.run_as_group.map_or(Ok(own_group), number)?;
        let mut groups =
            security.supplemental_groups.iter().map(|group| number(*group)).collect::<Result<Vec<_>, _>>()?;
        groups.sort_unstable();
        groups.dedup();
        Ok(Self { uid, gid, groups })
    }

    /// Makes files be opened and made as this user by the calling thread, and by no other. The kernel takes root's rights
    /// over other people's files away with that.
    pub(super) fn assume(&self) -> io::Result<()> {
        let groups: Vec<_> = self.groups.iter().map(|group| rustix::process::Gid::from_raw(*group)).collect();
        set_thread_groups(&groups)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setfsgid(gid);
        setfsuid(uid);
        // They do not tell whether they worked; asked for nobody, they tell who it is.
        match (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX))) {
            (is_user, is_group) if is_user == uid && is_group == gid => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(user: Option<i64>, group: Option<i64>, groups: &[i64]) -> LinuxSecurityContext {
        LinuxSecurityContext {
            run_as_user: user,
            run_as_group: group,
            supplemental_groups: groups.into(),
            ..LinuxSecurityContext::default()
        }
    }

    #[test]
    fn the_pod_goes_before_the_image() {
        let cases = [
            (security(None, None, &[]), "", (0, 0, &[][..])),
            (security(None, None, &[7, 5, 7]), "1000", (1000, 0, &[5, 7])),
            (security(None, None, &[]), "1000:2000", (1000, 2000, &[])),
            (security(Some(3000), None, &[]), "1000:2000", (3000, 0, &[])),
            (security(Some(1000), None, &[]), "1000:2000", (1000, 2000, &[])),
            (security(Some(3000), Some(4000), &[]), "nobody", (3000, 4000, &[])),
            (security(None, Some(4000), &[]), "root", (0, 4000, &[])),
        ];
        for (security, image, (uid, gid, groups)) in cases {
            let expected = Identity { uid, gid, groups: groups.into() };
            assert_eq!(Identity::wanted(&security, image).unwrap(), expected, "{security:?} {image}");
        }
        let error = Identity::wanted(&security(None, None, &[]), "www-data:33").unwrap_err();
        assert!(
            error.to_string().contains("\"www-data\"") && error.to_string().contains("runAsUser"),
            "{error}"
        );
        let error = Identity::wanted(&security(Some(-1), None, &[]), "").unwrap_err();
        assert_eq!(error, IdentityError::Number(-1));
    }
}
