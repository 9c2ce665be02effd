# frozen_string_literal: true

require "openssl"
require_relative "settings"

# Faults on purpose, for whoever wants to see what a client does with a broken provider. They are in a file of their own, which is looked
# at on every request: without the file there is none. While one is on, readiness says so, and each change is a line in the journal.
class Faults
  KEYS = {
    "issuer" => [nil, "the `iss` of ID tokens, a URL", ->(value) { value.is_a?(String) }],
    "id_token_seconds" => [nil, "the lifetime of ID tokens, negative for an expired one", ->(value) { value.is_a?(Integer) }],
    "unknown_signing_key" => [nil, "true: ID tokens are signed with a key that is not published", ->(value) { value == true }],
    "token_delay_ms" => [nil, "how long the token endpoint waits, at most 120000", ->(value) { value.is_a?(Integer) && value.between?(1, 120_000) }],
    "token_status" => [nil, "the status with which the token endpoint fails, 500 to 599", ->(value) { value.is_a?(Integer) && value.between?(500, 599) }],
  }.freeze

  class << self
    def issuer
      current["issuer"]
    end

    def id_token_seconds
      current["id_token_seconds"]
    end

    # A PEM, or nothing. Clients never find it among the published keys.
    def signing_key
      @signing_key ||= OpenSSL::PKey::RSA.new(2048).to_pem if current["unknown_signing_key"]
    end

    def token_delay
      current["token_delay_ms"]&.fdiv(1000)
    end

    def token_status
      current["token_status"]
    end

    # What is switched on, in words; nothing if nothing is.
    def description
      found = current.map { |key, value| "#{key} = #{value}" }.join(", ")
      "switched on: #{found}" unless found.empty?
    end

    private

    def current
      path = Settings.current["faults"]
      stat = File.stat(path)
      version = [stat.mtime, stat.ino, stat.size]
      change(version, read(path)) unless @version == version
      @values
    rescue Errno::ENOENT
      change(:none, {}) unless @version == :none
      @values
    end

    def read(path)
      Settings.read(path, KEYS, []).compact
    rescue Settings::Error => error
      { "error" => error.message }
    end

    def change(version, values)
      first = @version.nil?
      @version = version
      @values = values
      Identity.log("faults: #{description || "none"}") unless first && values.empty?
    end
  end

  # The token endpoint, late or failing.
  class TokenEndpoint
    def initialize(app)
      @app = app
    end

    def call(env)
      return @app.call(env) unless env["PATH_INFO"] == "/oauth/token" && Faults.description

      # The one place that sleeps: being late is the point.
      sleep Faults.token_delay if Faults.token_delay
      status = Faults.token_status
      return @app.call(env) unless status

      [status, { "content-type" => "text/plain" }, ["A fault on purpose\n"]]
    end
  end

  # What goes into ID tokens. Prepended to doorkeeper's class.
  module IdToken
    private

    def issuer
      Faults.issuer || super
    end

    def expiration
      seconds = Faults.id_token_seconds
      seconds ? issued_at + seconds : super
    end
  end

  # The key that signs. Prepended to the configuration of doorkeeper's OpenID part.
  module SigningKey
    def signing_key
      Faults.signing_key || super
    end
  end
end
