//! `cargo xtask dist`: a Debian package of the program, its manual page and its completions, looked at by lintian and tried in a
//! root of its own. It is made by `dpkg-deb` from a folder, and holds nothing but files: no script runs when it is installed.

mod control;
mod trial;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    build,
    command::{self, clean, is_root, say},
    error::Error,
    places,
    setup::{self, Part},
};

/// The name of the package and of the program.
const NAME: &str = "wsltrace";
/// The program in the package; what else there is stands in [`contents`].
const PROGRAM: &str = "usr/bin/wsltrace";
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// Builds for release, and makes, lints and tries `target/dist/wsltrace_VERSION_ARCHITECTURE.deb`.
pub(crate) fn run() -> Result<(), Error> {
    build::run(true)?;
    setup::ensure(&[Part::Package])?;
    let architecture = answer(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let stamp = control::Stamp::of_checkout()?;
    let place = places::dist();
    let tree = place.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(file("empty", &tree))?;
    }
    let files = fill(&tree, &stamp)?;
    let size = files.iter().map(|path| size(&tree.join(path))).sum::<Result<u64, Error>>()?;
    let depends = depends(&place, &tree.join(PROGRAM))?;
    put(&tree, "DEBIAN/control", control::control(architecture, &stamp, &depends, size).as_bytes())?;
    put(&tree, "DEBIAN/md5sums", answer(Command::new("md5sum").args(&files).current_dir(&tree))?.as_bytes())?;

    let package = place.join(format!("{NAME}_{}_{architecture}.deb", control::VERSION));
    command::run(clean("dpkg-deb").args(["--root-owner-group", "-Zxz", "--build"]).args([&tree, &package]))?;
    command::run(clean("lintian").args(["--fail-on", "error", "--allow-root", "--no-cfg"]).arg(&package))?;
    if is_root() {
        trial::run(&package, &files)?;
    } else {
        say("dist: the package was not tried: dpkg installs for root only (sudo -E cargo xtask dist)");
    }
    say(&format!("dist: {}", package.display()));
    Ok(())
}

/// Puts everything into the tree but what dpkg reads; gives the files, by their paths in the package.
fn fill(tree: &Path, stamp: &control::Stamp) -> Result<Vec<String>, Error> {
    let program = tree.join(PROGRAM);
    make_folder(tree, PROGRAM)?;
    fs::copy(places::program(true), &program).map_err(file("write", &program))?;
    command::run(clean("strip").args(["--strip-unneeded", "--remove-section=.comment"]).arg(&program))?;
    set_mode(&program, FOLDER_MODE)?;
    let mut files = vec![PROGRAM.to_owned()];
    for (path, text) in contents(stamp)? {
        put(tree, path, text.as_bytes())?;
        if path.strip_suffix(".gz").is_some() {
            let plain = tree.join(path).with_extension("");
            fs::rename(tree.join(path), &plain).map_err(file("rename", &plain))?;
            // -n keeps the name and the time of the file out, so that the same sources make the same package.
            command::run(clean("gzip").args(["-9n"]).arg(&plain))?;
        }
        files.push(path.to_owned());
    }
    Ok(files)
}

/// The files beside the program, with what is in them before they are packed.
fn contents(stamp: &control::Stamp) -> Result<[(&'static str, String); 7], Error> {
    let own = |arguments: &[&str]| answer(Command::new(places::program(true)).args(arguments));
    let read = |name: &str| {
        let path = places::root().join(name);
        fs::read_to_string(&path).map_err(file("read", &path))
    };
    Ok([
        ("usr/share/man/man1/wsltrace.1.gz", own(&["man"])?),
        ("usr/share/bash-completion/completions/wsltrace", own(&["completions", "bash"])?),
        ("usr/share/zsh/vendor-completions/_wsltrace", own(&["completions", "zsh"])?),
        ("usr/share/fish/vendor_completions.d/wsltrace.fish", own(&["completions", "fish"])?),
        ("usr/share/doc/wsltrace/copyright", control::copyright(&read("LICENSE-MIT")?)),
        ("usr/share/doc/wsltrace/changelog.gz", read("CHANGELOG.md")?),
        ("usr/share/doc/wsltrace/changelog.Debian.gz", control::changelog(stamp)),
    ])
}

/// The libraries that the program needs, with their versions, as the packages of this machine name them.
fn depends(place: &Path, program: &Path) -> Result<String, Error> {
    // It wants to stand in the sources of a Debian package.
    put(place, "debian/control", b"Source: wsltrace\n\nPackage: wsltrace\nArchitecture: any\n")?;
    let said = answer(clean("dpkg-shlibdeps").arg("-O").arg(program).current_dir(place))?;
    said.trim()
        .strip_prefix("shlibs:Depends=")
        .map(str::to_owned)
        .ok_or_else(|| Error::Odd { command: "dpkg-shlibdeps -O".to_owned(), said })
}

fn put(tree: &Path, path: &str, bytes: &[u8]) -> Result<(), Error> {
    make_folder(tree, path)?;
    let whole = tree.join(path);
    fs::write(&whole, bytes).map_err(file("write", &whole))?;
    set_mode(&whole, FILE_MODE)
}

/// Makes the folders above a file, each open to everybody whatever the umask is.
fn make_folder(tree: &Path, path: &str) -> Result<(), Error> {
    let mut folder = tree.to_owned();
    fs::create_dir_all(&folder).map_err(file("make", &folder))?;
    set_mode(&folder, FOLDER_MODE)?;
    for part in Path::new(path).parent().into_iter().flatten() {
        folder.push(part);
        fs::create_dir_all(&folder).map_err(file("make", &folder))?;
        set_mode(&folder, FOLDER_MODE)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(file("set the mode of", path))
}

fn size(path: &Path) -> Result<u64, Error> {
    Ok(fs::metadata(path).map_err(file("read", path))?.len())
}

/// Standard output of a command that has to succeed.
fn answer(command: &mut Command) -> Result<String, Error> {
    let line = command::line(command);
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|source| Error::Start { command: line.clone(), source })?;
    if !output.status.success() {
        return Err(Error::Failed { command: line, status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path: PathBuf = path.to_owned();
    move |source| Error::File { action, path, source }
}
