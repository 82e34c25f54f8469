//! Which kinds of volumes there are, and which of them are supported.

use coracle_core::ports::VolumeError;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::layout::is_file_name;

/// What the API puts where `defaultMode` is not set.
const DEFAULT_MODE: i32 = 0o644;

/// The directory that emptyDir volumes of a pod lie in.
pub(crate) const EMPTY_DIR_PLUGIN: &str = "kubernetes.io~empty-dir";
pub(crate) const CONFIG_MAP_PLUGIN: &str = "kubernetes.io~configmap";

/// A volume of a supported kind.
pub(crate) enum VolumeSpec<'a> {
    EmptyDir(EmptyDirSpec<'a>),
    HostPath(&'a HostPathVolumeSource),
    Payload(PayloadSpec<'a>),
}

/// An empty directory.
#[derive(Default)]
pub(crate) struct EmptyDirSpec<'a> {
    /// Whether it lives in memory.
    pub(crate) in_memory: bool,
    pub(crate) size_limit: Option<&'a Quantity>,
    pub(crate) mode: Option<i32>,
}

/// Files with content that comes from objects: configMap, secret, downwardAPI and projected are one thing.
pub(crate) struct PayloadSpec<'a> {
    /// Under which directory it lies.
    pub(crate) plugin: &'static str,
    pub(crate) default_mode: i32,
    pub(crate) default_user: Option<i64>,
    pub(crate) sources: Vec<SourceSpec<'a>>,
}

/// Where files come from.
pub(crate) enum SourceSpec<'a> {
    ConfigMap(ObjectSource<'a>),
    Secret(ObjectSource<'a>),
    DownwardApi(&'a [DownwardAPIVolumeFile]),
    ServiceAccountToken(&'a ServiceAccountTokenProjection),
}

/// A ConfigMap or a Secret.
pub(crate) struct ObjectSource<'a> {
    pub(crate) name: &'a str,
    /// Which keys go where; all of them under their own names if this is empty.
    pub(crate) items: &'a [KeyToPath],
    /// Whether the object and the keys may be missing.
    pub(crate) optional: bool,
}

impl<'a> ObjectSource<'a> {
    fn new(name: Option<&'a str>, items: &'a Option<Vec<KeyToPath>>, optional: Option<bool>) -> Self {
        Self {
            name: name.unwrap_or_default(),
            items: items.as_deref().unwrap_or_default(),
            optional: optional.unwrap_or(false),
        }
    }
}

impl<'a> VolumeSpec<'a> {
    /// Reads a volume; the error names the kind that is not supported.
    pub(crate) fn parse(volume: &'a Volume) -> Result<Self, VolumeError> {
        if !is_file_name(&volume.name) {
            return Err(VolumeError::Invalid("its name cannot be the name of a directory".to_owned()));
        }
        if let Some(kind) = unsupported_kind(volume) {
            return Err(VolumeError::Invalid(format!("volumes of kind {kind} are not supported")));
        }
        if let Some(source) = &volume.host_path {
            return Ok(Self::HostPath(source));
        }
        if let Some(source) = &volume.config_map {
            let object = ObjectSource::new(Some(&source.name), &source.items, source.optional);
            return Ok(Self::Payload(PayloadSpec {
                plugin: CONFIG_MAP_PLUGIN,
                default_mode: source.default_mode.unwrap_or(DEFAULT_MODE),
                default_user: source.default_user,
                sources: vec![SourceSpec::ConfigMap(object)],
            }));
        }
        if let Some(source) = &volume.secret {
            let object = ObjectSource::new(source.secret_name.as_deref(), &source.items, source.optional);
            return Ok(Self::Payload(PayloadSpec {
                plugin: "kubernetes.io~secret",
                default_mode: source.default_mode.unwrap_or(DEFAULT_MODE),
                default_user: source.default_user,
                sources: vec![SourceSpec::Secret(object)],
            }));
        }
        if let Some(source) = &volume.downward_api {
            return Ok(Self::Payload(PayloadSpec {
                plugin: "kubernetes.io~downward-api",
                default_mode: source.default_mode.unwrap_or(DEFAULT_MODE),
                default_user: source.default_user,
                sources: vec![SourceSpec::DownwardApi(source.items.as_deref().unwrap_or_default())],
            }));
        }
        if let Some(source) = &volume.projected {
            return projected(source).map(Self::Payload);
        }
        // The API's default where no kind is given.
        volume.empty_dir.as_ref().map_or(Ok(EmptyDirSpec::default()), empty_dir).map(Self::EmptyDir)
    }

    /// Whether containers may only read it, whatever they ask for.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::Payload(_))
    }
}

impl PayloadSpec<'_> {
    /// Whether a service account token is in it.
    pub(crate) fn needs_token(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, SourceSpec::ServiceAccountToken(_)))
    }
}

fn empty_dir(source: &EmptyDirVolumeSource) -> Result<EmptyDirSpec<'_>, VolumeError> {
    let in_memory = match source.medium.as_deref().unwrap_or_default() {
        "" => false,
        "Memory" => true,
        medium => {
            return Err(VolumeError::Invalid(format!(
                "emptyDir with medium {medium} is not supported; use \"\" or Memory"
            )));
        }
    };
    Ok(EmptyDirSpec { in_memory, size_limit: source.size_limit.as_ref(), mode: source.mode })
}

fn projected(source: &ProjectedVolumeSource) -> Result<PayloadSpec<'_>, VolumeError> {
    Ok(PayloadSpec {
        plugin: "kubernetes.io~projected",
        default_mode: source.default_mode.unwrap_or(DEFAULT_MODE),
        default_user: source.default_user,
        sources: source.sources.iter().flatten().map(projection).collect::<Result<_, _>>()?,
    })
}

fn projection(source: &VolumeProjection) -> Result<SourceSpec<'_>, VolumeError> {
    if let Some(s) = &source.config_map {
        Ok(SourceSpec::ConfigMap(ObjectSource::new(Some(&s.name), &s.items, s.optional)))
    } else if let Some(s) = &source.secret {
        Ok(SourceSpec::Secret(ObjectSource::new(Some(&s.name), &s.items, s.optional)))
    } else if let Some(s) = &source.downward_api {
        Ok(SourceSpec::DownwardApi(s.items.as_deref().unwrap_or_default()))
    } else if let Some(s) = &source.service_account_token {
        Ok(SourceSpec::ServiceAccountToken(s))
    } else {
        let kind = match source {
            VolumeProjection { cluster_trust_bundle: Some(_), .. } => "clusterTrustBundle",
            VolumeProjection { pod_certificate: Some(_), .. } => "podCertificate",
            _ => "an unknown kind",
        };
        Err(VolumeError::Invalid(format!("projected sources of kind {kind} are not supported")))
    }
}

fn unsupported_kind(volume: &Volume) -> Option<&'static str> {
    let kinds = [
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.cinder.is_some(), "cinder"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.fc.is_some(), "fc"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.flocker.is_some(), "flocker"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.image.is_some(), "image"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.nfs.is_some(), "nfs"),
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.rbd.is_some(), "rbd"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
    ];
    kinds.into_iter().find_map(|(is_set, kind)| is_set.then_some(kind))
}

/// Whether everything that a mount asks for is supported; the error names what is not.
pub(crate) fn check_mount(mount: &VolumeMount) -> Result<(), VolumeError> {
    let refused = |what: String| Err(VolumeError::Invalid(format!("{what} is not supported")));
    match mount.mount_propagation.as_deref().unwrap_or_default() {
        "" | "None" => {}
        mode => return refused(format!("mountPropagation {mode}")),
    }
    match mount.recursive_read_only.as_deref().unwrap_or_default() {
        "" | "Disabled" | "IfPossible" => {}
        mode => return refused(format!("recursiveReadOnly {mode}")),
    }
    if mount.bind_mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
        return refused("bindMountOptions".to_owned());
    }
    Ok(())
}
