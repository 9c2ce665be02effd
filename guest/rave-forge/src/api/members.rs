//! Who is in a group or a project, and as what.

use axum::extract::State;
use axum::http::{StatusCode, Uri};

use super::groups::{Group, group};
use super::{created, no_content, ok};
use crate::access::{self, MAINTAINER, OWNER, Project};
use crate::app::Shared;
use crate::auth::Caller;
use crate::error::{Answer, ApiError};
use crate::page::Page;
use crate::params::{Params, Segments};

const SHOWN: &str = "forge_user(m.user_id) || jsonb_build_object('access_level', m.access_level, 'created_at', forge_iso(m.created_at), 'expires_at', NULL,
    'membership_state', 'active')";

/// Where somebody is a member.
struct Place {
    table: &'static str,
    column: &'static str,
    id: i64,
    /// The caller's level there.
    level: i32,
}

impl From<Group> for Place {
    fn from(group: Group) -> Self {
        Self { table: "members", column: "namespace_id", id: group.id, level: group.level }
    }
}

impl From<Project> for Place {
    fn from(project: Project) -> Self {
        Self { table: "project_members", column: "project_id", id: project.id, level: project.level }
    }
}

impl Place {
    /// Maintainers decide about a project's members, owners about a group's; nobody gives more than they have.
    fn may_change(&self, given: i32) -> Result<(), ApiError> {
        let needed = if self.column == "project_id" { MAINTAINER } else { OWNER };
        if self.level >= needed && given <= self.level { Ok(()) } else { Err(ApiError::forbidden()) }
    }

    async fn list(&self, app: &Shared, uri: &Uri, params: &Params) -> Answer {
        let query = params.text("query")?;
        let sql = format!(
            "SELECT {SHOWN} AS item FROM {} m JOIN users u ON u.id = m.user_id WHERE m.{} = $1
               AND ($2::text IS NULL OR strpos(lower(u.username || ' ' || u.name), lower($2)) > 0) ORDER BY m.user_id",
            self.table, self.column
        );
        Page::of(params)?.rows(app, uri, &sql, &[&self.id, &query]).await
    }

    async fn one(&self, app: &Shared, user: i64) -> Answer {
        let sql =
            format!("SELECT {SHOWN} AS item FROM {} m WHERE m.{} = $1 AND m.user_id = $2", self.table, self.column);
        let row = app.db.row(&sql, &[&self.id, &user]).await?;
        Ok(ok(row.ok_or_else(nobody)?.get("item")))
    }

    async fn add(&self, app: &Shared, params: &Params) -> Answer {
        let user = params.number("user_id")?.ok_or_else(|| ApiError::missing("user_id"))?;
        let level = super::users::level(params)?;
        self.may_change(level)?;
        super::users::must_exist(app, user).await?;
        let sql = format!(
            "INSERT INTO {} AS m (user_id, {}, access_level) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING {SHOWN} AS item",
            self.table, self.column
        );
        let row = app.db.row(&sql, &[&user, &self.id, &level]).await?;
        Ok(created(row.ok_or_else(|| ApiError::conflict("Member already exists"))?.get("item")))
    }

    async fn change(&self, app: &Shared, user: i64, params: &Params) -> Answer {
        let level = super::users::level(params)?;
        self.may_change(level)?;
        self.may_change(self.level_of(app, user).await?)?;
        let sql = format!(
            "UPDATE {} m SET access_level = $3 WHERE m.{} = $1 AND m.user_id = $2 RETURNING {SHOWN} AS item",
            self.table, self.column
        );
        let row = app.db.row(&sql, &[&self.id, &user, &level]).await?;
        Ok(ok(row.ok_or_else(nobody)?.get("item")))
    }

    async fn remove(&self, app: &Shared, caller: &Caller, user: i64) -> Answer {
        let level = self.level_of(app, user).await?;
        if user != caller.id {
            self.may_change(level)?;
        }
        app.db
            .change(
                &format!("DELETE FROM {} WHERE {} = $1 AND user_id = $2", self.table, self.column),
                &[&self.id, &user],
            )
            .await?;
        Ok(no_content())
    }

    async fn level_of(&self, app: &Shared, user: i64) -> Result<i32, ApiError> {
        let sql = format!("SELECT access_level FROM {} WHERE {} = $1 AND user_id = $2", self.table, self.column);
        Ok(app.db.row(&sql, &[&self.id, &user]).await?.ok_or_else(nobody)?.get(0))
    }
}

fn nobody() -> ApiError {
    ApiError::message(StatusCode::NOT_FOUND, "404 Not found")
}

/// Members of a project, of its group, and the owner of its namespace, each with the highest level. `$1` is the project.
const EVERYBODY: &str = "(SELECT user_id, max(access_level) AS access_level, min(created_at) AS created_at FROM (
    SELECT user_id, access_level, created_at FROM project_members WHERE project_id = $1
    UNION ALL SELECT m.user_id, m.access_level, m.created_at FROM members m JOIN projects p ON p.namespace_id = m.namespace_id WHERE p.id = $1
    UNION ALL SELECT n.owner_id, 50, n.created_at FROM namespaces n JOIN projects p ON p.namespace_id = n.id
      WHERE p.id = $1 AND n.kind = 'user' AND n.owner_id IS NOT NULL) each_way GROUP BY user_id)";

type Two<T> = Segments<(String, T)>;

pub async fn of_group(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    Place::from(group(&app, &caller, &id).await?).list(&app, &uri, &params).await
}

pub async fn one_of_group(State(app): State<Shared>, caller: Caller, Segments((id, user)): Two<i64>) -> Answer {
    Place::from(group(&app, &caller, &id).await?).one(&app, user).await
}

pub async fn add_to_group(
    State(app): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    Place::from(group(&app, &caller, &id).await?).add(&app, &params).await
}

pub async fn change_in_group(
    State(app): State<Shared>,
    caller: Caller,
    Segments((id, user)): Two<i64>,
    params: Params,
) -> Answer {
    Place::from(group(&app, &caller, &id).await?).change(&app, user, &params).await
}

pub async fn remove_from_group(State(app): State<Shared>, caller: Caller, Segments((id, user)): Two<i64>) -> Answer {
    Place::from(group(&app, &caller, &id).await?).remove(&app, &caller, user).await
}

pub async fn of_project(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    Place::from(access::project(&app.db, Some(&caller), &id).await?).list(&app, &uri, &params).await
}

pub async fn all_of_project(
    State(app): State<Shared>,
    caller: Caller,
    uri: Uri,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    let project = access::project(&app.db, Some(&caller), &id).await?;
    let sql = format!("SELECT {SHOWN} AS item FROM {EVERYBODY} m ORDER BY m.user_id");
    Page::of(&params)?.rows(&app, &uri, &sql, &[&project.id]).await
}

pub async fn one_of_project(State(app): State<Shared>, caller: Caller, Segments((id, user)): Two<i64>) -> Answer {
    Place::from(access::project(&app.db, Some(&caller), &id).await?).one(&app, user).await
}

pub async fn any_of_project(State(app): State<Shared>, caller: Caller, Segments((id, user)): Two<i64>) -> Answer {
    let project = access::project(&app.db, Some(&caller), &id).await?;
    let row = app
        .db
        .row(&format!("SELECT {SHOWN} AS item FROM {EVERYBODY} m WHERE m.user_id = $2"), &[&project.id, &user])
        .await?;
    Ok(ok(row.ok_or_else(nobody)?.get("item")))
}

pub async fn add_to_project(
    State(app): State<Shared>,
    caller: Caller,
    Segments(id): Segments<String>,
    params: Params,
) -> Answer {
    Place::from(access::project(&app.db, Some(&caller), &id).await?).add(&app, &params).await
}

pub async fn change_in_project(
    State(app): State<Shared>,
    caller: Caller,
    Segments((id, user)): Two<i64>,
    params: Params,
) -> Answer {
    Place::from(access::project(&app.db, Some(&caller), &id).await?).change(&app, user, &params).await
}

pub async fn remove_from_project(State(app): State<Shared>, caller: Caller, Segments((id, user)): Two<i64>) -> Answer {
    Place::from(access::project(&app.db, Some(&caller), &id).await?).remove(&app, &caller, user).await
}
