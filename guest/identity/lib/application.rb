# frozen_string_literal: true

# The Rails application: no more of Rails than a provider needs, everything in one place.
ENV["RAILS_ENV"] = "production"

require "logger"
require "rails"
require "action_controller/railtie"
require "active_record/railtie"
require "doorkeeper/openid_connect"
require_relative "settings"
require_relative "faults"
require_relative "guards"

module Identity
  # A line for the journal. Nothing a user typed and no token goes in here.
  def self.log(line)
    $stdout.write("#{line}\n")
  end

  def self.public_url
    issuer = Settings.current.issuer
    { host: issuer.host, port: issuer.port, protocol: issuer.scheme }
  end

  # What is wrong with the database, or nothing.
  def self.ask_database
    Application.executor.wrap { ActiveRecord::Base.connection.execute("SELECT 1 FROM users LIMIT 1") }
    nil
  rescue ActiveRecord::ActiveRecordError, PG::Error => error
    first_line(error)
  end

  # Rails wraps some of the driver's errors and lets others through.
  def self.connection_lost?(error)
    [error, error.cause].any? do |one|
      case one
      when ActiveRecord::ConnectionNotEstablished, PG::ConnectionBad, PG::UnableToSend, PG::AdminShutdown, PG::CrashShutdown, PG::CannotConnectNow then true
      end
    end
  end

  def self.first_line(error)
    error.message.lines.first.to_s.strip
  end

  def self.database(settings)
    { adapter: "postgresql", host: settings["database_host"], port: settings["database_port"], database: settings["database_name"],
      pool: settings["threads"] + 1, connect_timeout: 5, application_name: "rave-identity",
      variables: { statement_timeout: "10s", lock_timeout: "5s" } }
  end

  class Application < Rails::Application
    settings = Settings.current

    config.root = File.expand_path("..", __dir__)
    config.load_defaults 6.1 # the oldest Rails that this runs on
    config.eager_load = false # Rails would load all it has; what serves here is named in Identity.start
    config.paths["config/environments"] = []
    config.paths["log"] = File::NULL
    config.define_singleton_method(:database_configuration) { { "production" => Identity.database(settings) } }
    config.secret_key_base = settings.session_secret
    config.relative_url_root = settings.issuer.path
    config.public_file_server.enabled = false
    config.consider_all_requests_local = false
    config.hosts.clear
    # Rails' own log tells every request with its parameters; what is worth a line is said by Identity.log. Stacks of unforeseen errors stay.
    config.logger = ActiveSupport::Logger.new($stdout)
    config.log_level = :error
    config.filter_parameters = [/password|secret|token|code|login|nonce|state|verifier/]
    config.active_record.migration_error = false if config.active_record.respond_to?(:migration_error=)

    config.action_dispatch.cookies_serializer = :json
    config.action_controller.include_all_helpers = false
    config.action_controller.per_form_csrf_tokens = true
    config.action_controller.forgery_protection_origin_check = true
    config.session_store :cookie_store, key: "_gitlab_session", path: settings.issuer.path, secure: true, httponly: true, same_site: :lax

    config.exceptions_app = lambda do |env|
      status = env["PATH_INFO"].delete_prefix("/").to_i
      Guards.text(status, "#{status} #{Rack::Utils::HTTP_STATUS_CODES[status]}\n")
    end
    config.middleware.insert_after ActionDispatch::DebugExceptions, Guards::Database

    # Doorkeeper's routes ask for its settings, and its controllers descend from these.
    initializer "identity.provider" do
      require_relative "base_controllers"
      require_relative "provider"
    end

    routes.append do
      root to: "identity/home#show"
      get "users/sign_in", to: "identity/sessions#new", as: :new_user_session
      post "users/sign_in", to: "identity/sessions#create", as: :user_session
      match "users/sign_out", to: "identity/sessions#destroy", via: %i[get post delete], as: :destroy_user_session
      get "users/sign_up", to: "identity/registrations#closed"
      post "users", to: "identity/registrations#closed"
      use_doorkeeper do
        skip_controllers :applications, :authorized_applications
        controllers authorizations: "identity/authorizations"
      end
      use_doorkeeper_openid_connect do
        controllers discovery: "identity/discovery"
      end
      match "(*path)", to: "identity/home#missing", via: :all, format: false
    end
  end

  # Loads everything that serves before the first request comes. The database may be away meanwhile.
  def self.start
    Application.initialize!
    require_relative "models"
    require_relative "controllers"
    Provider.adapt
    [Doorkeeper::TokensController, Doorkeeper::TokenInfoController, Doorkeeper::OpenidConnect::UserinfoController]
    Application.routes_reloader.execute_unless_loaded if Application.routes_reloader.respond_to?(:execute_unless_loaded)
    Application.routes.url_helpers
    log("database: #{ask_database || "answers"}; faults: #{Faults.description || "none"}")
    Application
  end
end
