# What the appliance needs in GitLab, made once and found again: run by `gitlab-rails runner` with the origin as argument.
#
# Secrets come as systemd credentials. Everything may be run again at any boot.
require "json"

origin = ARGV.fetch(0)

def credential(name)
  path = File.join(ENV.fetch("CREDENTIALS_DIRECTORY"), name)
  File.read(path).strip if File.exist?(path)
end

# GitLab answers with the object, or with a service response around it.
def made(result, kind)
  object = result.respond_to?(:payload) ? result.payload[kind] : result
  raise "#{kind}: #{result.respond_to?(:message) ? result.message : 'not made'}" if object.nil?
  raise "#{kind}: #{object.errors.full_messages.join(', ')}" unless object.persisted?

  object
end

root = User.find_by!(username: "root")
organization = Organizations::Organization.first

account = lambda do |username, name, email, password, admin|
  found = User.find_by(username: username)
  next found if found

  attributes = {
    username: username, name: name, email: email, password: password, password_confirmation: password,
    skip_confirmation: true, admin: admin, organization_id: organization.id
  }
  made(Users::CreateService.new(root, attributes).execute, :user)
end

# Only its digest is kept; a token that is there already is left alone.
token = lambda do |user, name, value|
  next if user.personal_access_tokens.active.find_by(name: name)

  fresh = user.personal_access_tokens.build(
    name: name, scopes: ["api"], expires_at: 364.days.from_now, organization: organization
  )
  fresh.set_token(value)
  fresh.save!
end

group = Group.find_by_full_path("rave") ||
  made(Groups::CreateService.new(root, name: "RAVE", path: "rave", visibility_level: 0, organization_id: organization.id).execute, :group)

bot = account.call("rave-bot", "RAVE bot", "rave-bot@#{URI(origin).host}", SecureRandom.base58(40), false)
group.add_member(bot, Gitlab::Access::MAINTAINER)
token.call(bot, "rave-bridge", credential("bridge-forge-token"))

{
  "synapse" => "#{origin}/_synapse/client/oidc/callback",
  "grafana" => "#{origin}/grafana/login/gitlab"
}.each do |name, redirect|
  application = Doorkeeper.config.application_model.find_or_initialize_by(uid: name)
  application.assign_attributes(name: name, redirect_uri: redirect, scopes: "openid profile email", confidential: true, trusted: true)
  Doorkeeper.config.application_secret_strategy.store_secret(application, :secret, credential("oidc-#{name}"))
  application.organization = organization if application.respond_to?(:organization=)
  application.save!
end

unless Ci::Runner.instance_type.find_by(description: "rave")
  runner = Ci::Runner.new(runner_type: :instance_type, description: "rave", run_untagged: true, active: true)
  runner.registration_type = :authenticated_user if runner.respond_to?(:registration_type=)
  runner.set_token(credential("forge-runner"))
  runner.save!
end

# Nobody makes an account for himself.
Gitlab::CurrentSettings.current_application_settings.update!(signup_enabled: false, password_authentication_enabled_for_git: false)

if (handed_in = credential("rave.accounts"))
  JSON.parse(handed_in).fetch("accounts").each do |wanted|
    user = account.call(wanted.fetch("username"), wanted.fetch("name"), wanted.fetch("email"), wanted.fetch("password"), wanted["admin"] == true)
    # root is there from the start, with a password of its own.
    user.update!(password: wanted.fetch("password"), password_confirmation: wanted.fetch("password")) if user.username == "root"
    group.add_member(user, wanted["access_level"]) if wanted["access_level"]
    token.call(user, "rave-accounts", wanted["token"]) if wanted["token"]
  end
end
