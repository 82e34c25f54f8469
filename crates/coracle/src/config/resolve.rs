//! From raw flags and files to the one configuration that the wiring uses.

use std::collections::BTreeMap;

use serde_json::Value;

use super::args::KubeletArgs;
use super::error::ConfigError;
use super::fields::FIELDS;
use super::flags::{BOOTSTRAP_KUBECONFIG, CONFIG, CONFIG_DIR, Flag, KUBECONFIG, flags};
use super::kubelet_configuration::KubeletConfiguration;
use super::kubelet_flags::KubeletFlags;
use super::support::Support;
use super::values::Values;
use super::{feature_gates, sources, validation};

/// A configuration that is known to be valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// What belongs to this node alone.
    pub flags: KubeletFlags,
    /// What nodes may share.
    pub config: KubeletConfiguration,
    /// All fields of `config` and those without effect, with defaults filled in: what `/configz` shows.
    pub effective: Value,
    /// All flags with their values as text: what `/flagz` shows.
    pub flag_values: BTreeMap<String, String>,
    /// One line each for the log: settings without effect, and deprecated flags.
    pub warnings: Vec<String>,
}

/// What was found while checking: warnings let the start go on, problems do not.
#[derive(Default)]
struct Findings {
    warnings: Vec<String>,
    problems: Vec<String>,
}

impl KubeletArgs {
    /// Reads the files that the flags name, lays drop-ins and then flags over them, and checks the result.
    ///
    /// The order is upstream's: built-in defaults, `--config`, the drop-ins of `--config-dir` by name, flags.
    pub fn resolve(&self) -> Result<Resolved, ConfigError> {
        self.version()?;
        let flags = KubeletFlags::from_args(self)?;
        let standalone = flags.kubeconfig.is_none();
        let mut values =
            sources::load(self.path(CONFIG).as_deref(), self.path(CONFIG_DIR).as_deref(), standalone)?;
        self.override_fields(&mut values)?;

        let mut found =
            Findings { problems: validation::validate(&values, standalone), ..Findings::default() };
        check_fields(&values, &mut found);
        self.check_own_flags(&mut found)?;
        if !found.problems.is_empty() {
            return Err(ConfigError::Invalid { messages: found.problems });
        }
        found.warnings.extend(self.deprecation());

        let mut effective = values.into_json();
        let config = serde_json::from_value(effective.clone()).map_err(|error| ConfigError::Invalid {
            messages: vec![format!("invalid configuration: {error}")],
        })?;
        mask_headers(&mut effective);
        let flag_values = self.flag_values(&effective);
        Ok(Resolved { flags, config, effective, flag_values, warnings: found.warnings })
    }

    /// The values of all flags: of those that stand for a field, what holds for it.
    fn flag_values(&self, effective: &Value) -> BTreeMap<String, String> {
        let value = |flag: &Flag| match flag.field {
            Some(field) => field.path.split('.').try_fold(effective, |value, name| value.get(name)).cloned(),
            None => self.last(flag.name).map(Value::from).or_else(|| flag.unset.default_value()),
        };
        let text = |flag: &Flag| match value(flag) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        };
        flags().iter().map(|flag| (flag.name.to_owned(), text(flag))).collect()
    }

    /// Flags win over files (`kubeletConfigFlagPrecedence`); only feature gates are merged.
    fn override_fields(&self, values: &mut Values) -> Result<(), ConfigError> {
        for flag in self.given_flags() {
            let Some(field) = flag.field else { continue };
            let current = values.get(field.path).cloned();
            let mut value = self.parse(&flag, current.as_ref())?;
            if field.path == "featureGates"
                && let (Some(Value::Object(before)), Value::Object(gates)) = (current, &mut value)
            {
                for (name, enabled) in before {
                    gates.entry(name).or_insert(enabled);
                }
            }
            values.set(field.path, value);
        }
        Ok(())
    }

    /// Reports flags that no field stands for. Those that work are read elsewhere.
    fn check_own_flags(&self, found: &mut Findings) -> Result<(), ConfigError> {
        let works = |flag: &Flag| matches!(flag.support, Support::Works(_));
        for flag in self.given_flags().filter(|flag| flag.field.is_none() && !works(flag)) {
            let value = self.parse(&flag, None)?;
            if !flag.unset.is_default(Some(&value)) {
                let name = format!("--{}", flag.name);
                flag.support.report(&name, &mut found.warnings, &mut found.problems);
            }
        }
        if let (Some(kubeconfig), Some(_)) = (self.path(KUBECONFIG), self.last(BOOTSTRAP_KUBECONFIG))
            && !kubeconfig.exists()
        {
            found.problems.push(format!(
                "--bootstrap-kubeconfig cannot be used to make {}: requesting a client certificate is not built in yet; \
                 create the file with a credential of the node",
                kubeconfig.display()
            ));
        }
        Ok(())
    }

    /// Upstream deprecates all flags of configuration fields but a few that logs and the machine need.
    fn deprecation(&self) -> Option<String> {
        const KEPT: [&str; 5] = ["v", "vmodule", "log-flush-frequency", "provider-id", "fail-cgroupv1"];
        let names: Vec<_> = self
            .given_flags()
            .filter(|flag| flag.field.is_some() && !KEPT.contains(&flag.name))
            .map(|flag| format!("--{}", flag.name))
            .collect();
        (!names.is_empty()).then(|| {
            format!("deprecated flags: {}; set their fields in the file given by --config", names.join(", "))
        })
    }
}

/// Headers may be secret (`marshalKubeletConfigForLog`).
fn mask_headers(effective: &mut Value) {
    let headers = effective.get_mut("staticPodURLHeader").and_then(Value::as_object_mut);
    for values in headers.into_iter().flat_map(|headers| headers.values_mut()) {
        *values = serde_json::json!(["<masked>"]);
    }
}

/// Reports fields that are set to something this program does not do.
fn check_fields(values: &Values, found: &mut Findings) {
    feature_gates::check(values.get("featureGates"), &mut found.warnings, &mut found.problems);
    for field in FIELDS.iter().filter(|field| !field.unset.is_default(values.get(field.path))) {
        field.support.report(&field.display_name(), &mut found.warnings, &mut found.problems);
    }
}
