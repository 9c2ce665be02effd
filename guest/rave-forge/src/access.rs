//! Who may do what: GitLab's access levels, and the project a request is about.

use tokio_postgres::Row;

use crate::auth::Caller;
use crate::db::Db;
use crate::error::ApiError;

/// May see that a project is there.
pub const GUEST: i32 = 10;
/// May read code.
pub const REPORTER: i32 = 20;
/// May write to branches that are not protected.
pub const DEVELOPER: i32 = 30;
/// May write to protected branches and manage members.
pub const MAINTAINER: i32 = 40;
/// May delete.
pub const OWNER: i32 = 50;

/// A project, and what the caller is in it.
#[derive(Debug, Clone)]
pub struct Project {
    /// The project's id.
    pub id: i64,
    /// The namespace's id.
    pub namespace_id: i64,
    /// The namespace's path.
    pub namespace: String,
    /// The project's own path.
    pub path: String,
    /// The project's name.
    pub name: String,
    /// `private`, `internal` or `public`.
    pub visibility: String,
    /// The default branch, if there is any branch.
    pub default_branch: Option<String>,
    /// Whether only a successful pipeline lets a merge request be merged.
    pub pipeline_must_pass: bool,
    /// The caller's level: 0 for strangers.
    pub level: i32,
}

impl Project {
    /// Namespace and path: `rave/hello`.
    #[must_use]
    pub fn full_path(&self) -> String {
        format!("{}/{}", self.namespace, self.path)
    }

    /// Lets the caller through from a level on. What everybody may read takes no level.
    ///
    /// # Errors
    /// 403 for a lower level.
    pub fn needs(&self, level: i32) -> Result<(), ApiError> {
        let everybody = level <= REPORTER && self.visibility != "private";
        if everybody || self.level >= level { Ok(()) } else { Err(ApiError::forbidden()) }
    }

    /// Lets a writer through: as [`Project::needs`], and nobody is 401.
    ///
    /// # Errors
    /// 403 for a lower level.
    pub fn needs_writer(&self, level: i32) -> Result<(), ApiError> {
        if self.level >= level { Ok(()) } else { Err(ApiError::forbidden()) }
    }
}

/// The caller's level in a project, in SQL: the highest of group, project and own namespace. `$1` is the caller or null, `p` and `n` are at hand.
const LEVEL: &str = "greatest(0,
    (SELECT max(access_level) FROM members m WHERE m.user_id = $1::bigint AND m.namespace_id = p.namespace_id),
    (SELECT access_level FROM project_members m WHERE m.user_id = $1::bigint AND m.project_id = p.id),
    CASE WHEN n.kind = 'user' AND n.owner_id = $1 THEN 50 END,
    (SELECT 50 FROM users u WHERE u.id = $1 AND u.admin))";

/// A project by number or path, for whoever may see it.
///
/// # Errors
/// 404 if it is not there or must not be seen.
pub async fn project(db: &Db, caller: Option<&Caller>, id: &str) -> Result<Project, ApiError> {
    let found = find(db, caller.map(|caller| caller.id), id).await?;
    let project = found.ok_or_else(|| ApiError::not_found("Project"))?;
    let seen = match project.visibility.as_str() {
        "public" => true,
        "internal" => caller.is_some(),
        _ => project.level >= GUEST,
    };
    if seen { Ok(project) } else { Err(ApiError::not_found("Project")) }
}

/// A project by number or path as a user sees it, whether that user may or not.
///
/// # Errors
/// If the database is away.
pub async fn find(db: &Db, user: Option<i64>, id: &str) -> Result<Option<Project>, ApiError> {
    let select = "SELECT p.id, p.namespace_id, n.path AS namespace, p.path, p.name, p.visibility, p.default_branch, p.pipeline_must_pass";
    let from = "FROM projects p JOIN namespaces n ON n.id = p.namespace_id WHERE NOT p.deleting";
    let row = if let Ok(number) = id.parse::<i64>() {
        db.row(&format!("{select}, {LEVEL} AS level {from} AND p.id = $2"), &[&user, &number]).await?
    } else if let Some((namespace, path)) = id.split_once('/').filter(|_| !id.contains('\0')) {
        let sql =
            format!("{select}, {LEVEL} AS level {from} AND lower(n.path) = lower($2) AND lower(p.path) = lower($3)");
        db.row(&sql, &[&user, &namespace, &path]).await?
    } else {
        None
    };
    Ok(row.map(|row| read(&row)))
}

/// A condition in SQL: the caller `$1` may see project `p` in namespace `n`.
#[must_use]
pub fn visible() -> String {
    format!(
        "NOT p.deleting AND (p.visibility = 'public' OR (p.visibility = 'internal' AND $1::bigint IS NOT NULL) OR {LEVEL} >= 10)"
    )
}

/// The caller's level in a namespace: 50 for administrators and in one's own.
///
/// # Errors
/// If the database is away.
pub async fn namespace_level(db: &Db, caller: &Caller, namespace: i64) -> Result<i32, ApiError> {
    if caller.admin {
        return Ok(OWNER);
    }
    let sql = "SELECT greatest(0, (SELECT access_level FROM members WHERE user_id = $1 AND namespace_id = n.id),
                 CASE WHEN n.kind = 'user' AND n.owner_id = $1 THEN 50 END) AS level FROM namespaces n WHERE n.id = $2";
    Ok(db.row(sql, &[&caller.id, &namespace]).await?.map_or(0, |row| row.get("level")))
}

/// The level that a protected branch wants, for moving it directly (`push_level`) and by a merge (`merge_level`).
///
/// # Errors
/// If the database is away.
pub async fn branch_levels(db: &Db, project: i64, branch: &str) -> Result<(i32, i32), ApiError> {
    let sql = "SELECT push_level, merge_level FROM protected_branches WHERE project_id = $1 AND name = $2";
    let row = db.row(sql, &[&project, &branch]).await?;
    Ok(row.map_or((DEVELOPER, DEVELOPER), |row| (row.get("push_level"), row.get("merge_level"))))
}

fn read(row: &Row) -> Project {
    Project {
        id: row.get("id"),
        namespace_id: row.get("namespace_id"),
        namespace: row.get("namespace"),
        path: row.get("path"),
        name: row.get("name"),
        visibility: row.get("visibility"),
        default_branch: row.get("default_branch"),
        pipeline_must_pass: row.get("pipeline_must_pass"),
        level: row.get("level"),
    }
}
