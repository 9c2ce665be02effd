# frozen_string_literal: true

require_relative "faults"

# Doorkeeper as GitLab sets it up, as far as a stand-in needs it.
Doorkeeper.configure do
  orm :active_record
  base_controller "Identity::PageController"
  base_metal_controller "Identity::ApiController"

  resource_owner_authenticator do
    current_user || begin
      session[:user_return_to] = request.fullpath
      redirect_to new_user_session_url
      nil
    end
  end

  # The code flow and nothing else: no implicit flow, and no password grant.
  grant_flows %w[authorization_code]
  default_scopes :openid
  optional_scopes :profile, :email, :read_user, :api, :read_api
  enforce_configured_scopes
  authorization_code_expires_in 600
  access_token_expires_in 7200
  use_refresh_token
  hash_token_secrets
  hash_application_secrets
  access_token_methods :from_bearer_authorization
  force_ssl_in_redirect_uri { |uri| !%w[localhost 127.0.0.1].include?(uri.host) }
  skip_authorization { |_owner, client| client.application.trusted? }

  after_successful_authorization do |controller, context|
    if context.auth.is_a?(Doorkeeper::OAuth::CodeResponse)
      Identity.log("code for application #{controller.params[:client_id].to_s[/\A[\w-]{1,64}/]} and user #{controller.current_user&.id}")
    end
  end
  after_successful_strategy_response do |request, response|
    token = response.token
    Identity.log("token for application #{token.application&.uid} and user #{token.resource_owner_id} by #{request.grant_type}")
  end
end

Doorkeeper::OpenidConnect.configure do
  issuer Settings.current["issuer"]
  signing_key Settings.current.signing_key
  signing_algorithm :rs256
  subject_types_supported [:public]
  expiration 120
  protocol { :https }

  resource_owner_from_access_token { |token| User.find_by(id: token.resource_owner_id) }
  subject { |owner, _application| owner.id }
  auth_time_from_resource_owner { |owner| UserSession.where(user_id: owner.id).maximum(:created_at) }
  reauthenticate_resource_owner do |_owner, return_to|
    sign_out_user
    session[:user_return_to] = return_to
    redirect_to new_user_session_url
  end
  select_account_for_resource_owner do |_owner, return_to|
    session[:user_return_to] = return_to
    redirect_to new_user_session_url
  end

  # Which claim is in the ID token, which only in userinfo, and which needs what scope: as GitLab.
  claims do
    both = %i[id_token user_info]
    claim(:name, response: both) { |owner| owner.name }
    claim(:nickname, response: both) { |owner| owner.username }
    claim(:preferred_username, response: both) { |owner| owner.username }
    claim(:profile, response: both) { |owner| "#{Settings.current["issuer"]}/#{owner.username}" }
    claim(:email, response: both) { |owner| owner.email }
    claim(:email_verified, response: both) { |owner| owner.confirmed? }
    claim(:groups_direct, scope: :openid, response: [:id_token]) { |owner| owner.groups }
    claim(:groups, scope: :openid, response: [:user_info]) { |owner| owner.groups }
    { owner: 50, maintainer: 40, developer: 30 }.each do |role, level|
      claim(:"https://gitlab.org/claims/groups/#{role}", scope: :openid, response: [:user_info]) { |owner| owner.groups([level]).presence }
    end
  end
end

# The method `plain` would let whoever sees the authorize URL redeem the code.
module OnlyS256
  private

  def validate_code_challenge_method
    code_challenge.blank? || code_challenge_method == "S256"
  end
end

# What no setting offers.
module Provider
  # The key is read once; reading it again for every token is dear on an emulated machine.
  module ReadOnce
    KEY = Doorkeeper::OpenidConnect.signing_key
    PUBLISHED = Doorkeeper::OpenidConnect.signing_key_normalized.freeze

    def signing_key
      Faults.signing_key ? super : KEY
    end

    def signing_key_normalized
      PUBLISHED
    end
  end

  def self.adapt
    Doorkeeper::OpenidConnect.singleton_class.prepend ReadOnce
    Doorkeeper::OpenidConnect.configuration.singleton_class.prepend Faults::SigningKey
    Doorkeeper::OpenidConnect::IdToken.prepend Faults::IdToken
    Doorkeeper::OAuth::PreAuthorization.prepend OnlyS256
    [Doorkeeper::AccessToken, Doorkeeper::AccessGrant].each { |model| model.prepend OfActiveOwner }
  end
end
