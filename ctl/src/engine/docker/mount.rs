//! What of the host a container sees, in docker's own words: `--volume`, `--mount`, `--tmpfs`.

use std::collections::HashMap;

use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig,
};

use super::quantity;

/// A `--volume`: an anonymous one, or a folder or named volume with its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Volume {
    Anonymous(String),
    Bind(String),
}

/// Reads `--volume [SOURCE:]TARGET[:OPTIONS]`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn volume(text: &str) -> Result<Volume, String> {
    const OPTIONS: [&str; 16] = [
        "ro",
        "rw",
        "z",
        "Z",
        "nocopy",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "consistent",
        "cached",
        "delegated",
        "volume-nocopy",
        "",
    ];
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(format!("`{text}` has too many parts; write SOURCE:TARGET[:OPTIONS]")),
    };
    if !target.starts_with('/') || target == "/" {
        return Err(format!("`{text}`: the place in the container must be an absolute path other than /"));
    }
    if let Some(unknown) = options.split(',').find(|option| !OPTIONS.contains(option)) {
        return Err(format!("`{text}`: there is no option `{unknown}`"));
    }
    match source {
        None => Ok(Volume::Anonymous(target.to_owned())),
        Some(source) if source.starts_with('/') || is_volume_name(source) => Ok(Volume::Bind(text.to_owned())),
        // What a relative path means would change with the folder that the next switch is typed in.
        Some(_) => Err(format!("`{text}`: the source is neither an absolute path nor the name of a volume")),
    }
}

fn is_volume_name(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Reads `--tmpfs PATH[:OPTIONS]` as a path and its options.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn tmpfs(text: &str) -> Result<(String, String), String> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err(format!("`{text}`: the place in the container must be an absolute path"));
    }
    Ok((path.to_owned(), options.to_owned()))
}

/// Reads `--mount type=bind,source=/data,target=/data,readonly`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn mount(text: &str) -> Result<Mount, String> {
    let wrong = |why: String| format!("`{text}`: {why}");
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    let mut bind = MountBindOptions::default();
    let mut volume = MountVolumeOptions::default();
    let mut tmpfs = MountTmpfsOptions::default();
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let needed = || value.map(str::to_owned).ok_or_else(|| wrong(format!("`{key}` has no value")));
        match key {
            "type" => {
                mount.typ = Some(match needed()?.as_str() {
                    "bind" => MountType::BIND,
                    "volume" => MountType::VOLUME,
                    "tmpfs" => MountType::TMPFS,
                    other => return Err(wrong(format!("there is no type `{other}` (bind, volume, tmpfs)"))),
                });
            }
            "source" | "src" => mount.source = Some(needed()?),
            "target" | "dst" | "destination" => mount.target = Some(needed()?),
            "readonly" | "ro" => mount.read_only = Some(flag(value).map_err(wrong)?),
            "consistency" => mount.consistency = Some(needed()?),
            "bind-propagation" => {
                let propagation = needed()?;
                let parsed = propagation.parse::<MountBindOptionsPropagationEnum>();
                bind.propagation = Some(parsed.map_err(|_| wrong(format!("there is no propagation `{propagation}`")))?);
            }
            "bind-nonrecursive" => bind.non_recursive = Some(flag(value).map_err(wrong)?),
            "volume-nocopy" => volume.no_copy = Some(flag(value).map_err(wrong)?),
            "volume-driver" => driver(&mut volume).name = Some(needed()?),
            "volume-opt" => {
                let option = needed()?;
                let (name, value) = option.split_once('=').unwrap_or((&option, ""));
                let options = driver(&mut volume).options.get_or_insert_with(HashMap::new);
                options.insert(name.to_owned(), value.to_owned());
            }
            "volume-label" => {
                let label = needed()?;
                let (name, value) = label.split_once('=').unwrap_or((&label, ""));
                volume.labels.get_or_insert_with(HashMap::new).insert(name.to_owned(), value.to_owned());
            }
            "tmpfs-size" => tmpfs.size_bytes = Some(quantity::bytes(&needed()?).map_err(wrong)?),
            "tmpfs-mode" => {
                let mode = needed()?;
                tmpfs.mode =
                    Some(i64::from_str_radix(&mode, 8).map_err(|_| wrong(format!("mode `{mode}` is not octal")))?);
            }
            other => return Err(wrong(format!("there is no field `{other}`"))),
        }
    }
    if !mount.target.as_ref().is_some_and(|target| target.starts_with('/')) {
        return Err(wrong("a target is needed, an absolute path in the container".to_owned()));
    }
    let is_bind = mount.typ == Some(MountType::BIND);
    if is_bind && !mount.source.as_ref().is_some_and(|source| source.starts_with('/')) {
        return Err(wrong("a bind mount needs a source, an absolute path on the host".to_owned()));
    }
    let default = (MountBindOptions::default(), MountVolumeOptions::default(), MountTmpfsOptions::default());
    mount.bind_options = (bind != default.0).then_some(bind);
    mount.volume_options = (volume != default.1).then_some(volume);
    mount.tmpfs_options = (tmpfs != default.2).then_some(tmpfs);
    let is_tmpfs = mount.typ == Some(MountType::TMPFS);
    if (mount.bind_options.is_some() && !is_bind)
        || (mount.tmpfs_options.is_some() && !is_tmpfs)
        || (mount.volume_options.is_some() && (is_bind || is_tmpfs))
    {
        return Err(wrong("it has a field of another type of mount".to_owned()));
    }
    Ok(mount)
}

fn driver(volume: &mut MountVolumeOptions) -> &mut MountVolumeOptionsDriverConfig {
    volume.driver_config.get_or_insert_with(MountVolumeOptionsDriverConfig::default)
}

fn flag(value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("`{other}` is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_a_folder_a_name_or_anonymous() {
        assert_eq!(volume("/cache"), Ok(Volume::Anonymous("/cache".to_owned())));
        for good in ["/srv/data:/data", "data:/data:ro", "/a:/b:ro,z"] {
            assert_eq!(volume(good), Ok(Volume::Bind(good.to_owned())));
        }
        for bad in ["data", "./data:/data", "a:b", "a:/b:rx", "a:/b:ro:c", "a:/", "/x y/../:", ""] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mount_is_read_field_by_field() {
        let bind = mount("type=bind,src=/srv,dst=/data,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((bind.source.as_deref(), bind.target.as_deref()), (Some("/srv"), Some("/data")));
        assert_eq!(bind.read_only, Some(true));
        assert!(bind.volume_options.is_none() && bind.bind_options.is_some());
        let tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770").unwrap().tmpfs_options.unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (Some(64 << 20), Some(0o1770)));
        let volume = mount("source=data,target=/d,volume-opt=type=nfs").unwrap().volume_options.unwrap();
        assert_eq!(volume.driver_config.unwrap().options.unwrap()["type"], "nfs");
    }

    #[test]
    fn a_wrong_mount_says_what_is_wrong() {
        for (bad, why) in [
            ("type=bind,target=/d", "source"),
            ("type=blind,target=/d", "blind"),
            ("source=a", "target"),
            ("target=/d,colour=red", "colour"),
            ("type=bind,src=/a,dst=/b,tmpfs-size=1m", "another type"),
            ("target=/d,ro=maybe", "maybe"),
        ] {
            assert!(mount(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn a_tmpfs_has_a_path_and_options() {
        assert_eq!(tmpfs("/run:size=1m,mode=700"), Ok(("/run".to_owned(), "size=1m,mode=700".to_owned())));
        assert!(tmpfs("run").is_err());
    }
}
