//! What a new project holds: a main branch that is the same in every project, and a branch with a first change to be merged.

/// The branch that is deployed.
pub const MAIN: &str = "main";
/// The branch with the first change.
pub const FEATURE: &str = "hello";
/// The title of its merge request.
pub const TITLE: &str = "Say hello";

/// The files of the main branch: path and content.
pub const MAIN_FILES: [(&str, &str); 3] = [
    ("README.md", include_str!("../template/main/README.md")),
    (".gitlab-ci.yml", include_str!("../template/main/gitlab-ci.yml")),
    ("tests/run", include_str!("../template/main/tests/run")),
];

/// The files that the feature branch adds, with the project's name filled in.
#[must_use]
pub fn feature_files(project: &str) -> [(&'static str, String); 2] {
    let fill = |text: &str| text.replace("@project@", project);
    [
        ("hello", fill(include_str!("../template/hello/hello"))),
        ("tests/hello.test", fill(include_str!("../template/hello/tests/hello.test"))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    /// What CI does, on both branches: the test passes, and fails when the program says something else.
    #[test]
    fn the_program_passes_its_test_and_the_test_can_fail() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let test = || Command::new("sh").arg("tests/run").current_dir(&folder).output().unwrap();
        MAIN_FILES.iter().for_each(|(path, content)| write(path, content));
        assert!(test().status.success());
        feature_files("demo-1").iter().for_each(|(path, content)| write(path, content));
        let output = test();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "tests/hello.test: ok\n1 passed\n");
        let hello = Command::new("sh").arg("hello").current_dir(&folder).output().unwrap();
        assert_eq!(String::from_utf8(hello.stdout).unwrap(), "Hello from demo-1!\n");
        write("hello", "echo something else\n");
        assert!(!test().status.success());
    }
}
