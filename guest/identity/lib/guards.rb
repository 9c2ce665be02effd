# frozen_string_literal: true

require "ipaddr"
require "uri"
require_relative "settings"

# What stands before the application, outermost first: each is a small Rack program that answers for itself or lets the request through.
module Guards
  # nginx says whose request it is, and lets nobody else say so; without it, it is whoever connected.
  def self.address(env)
    IPAddr.new((env["HTTP_X_FORWARDED_FOR"] || env["REMOTE_ADDR"]).to_s.split(",").last.to_s.strip)
  rescue IPAddr::Error
    IPAddr.new("0.0.0.0")
  end

  def self.text(status, body, headers = {})
    [status, { "content-type" => "text/plain; charset=utf-8" }.merge(headers), [body]]
  end

  # GitLab's three probes, for whoever the settings allow. For everybody else they do not exist.
  class Probes
    def initialize(app)
      @app = app
    end

    def call(env)
      path = env["PATH_INFO"]
      return @app.call(env) unless path.start_with?("/-/")

      allowed = Settings.current.probes_from.any? { |network| network.include?(Guards.address(env)) }
      return Guards.text(404, "") unless allowed && %w[GET HEAD].include?(env["REQUEST_METHOD"])

      case path
      when "/-/health" then Guards.text(200, "GitLab OK")
      when "/-/liveness" then json("status" => "ok")
      when "/-/readiness" then readiness(env["QUERY_STRING"].split("&").include?("all=1"))
      else Guards.text(404, "")
      end
    end

    private

    def readiness(all)
      checks = { "master_check" => [{ "status" => "ok" }] }
      checks["db_check"] = [check { Identity.ask_database }] if all
      checks["fault_check"] = [check { Faults.description }] if all
      failed = checks.values.flatten.any? { |result| result["status"] != "ok" }
      json({ "status" => failed ? "failed" : "ok" }.merge(checks), failed ? 503 : 200)
    end

    # The block answers with what is wrong, or with nothing.
    def check
      wrong = yield
      wrong ? { "status" => "failed", "message" => wrong } : { "status" => "ok" }
    end

    def json(answer, status = 200)
      [status, { "content-type" => "application/json; charset=utf-8", "cache-control" => "no-store" }, [answer.to_json]]
    end
  end

  # So many POSTs a minute from one address to where passwords are tried, as GitLab's rack-attack does it: in windows of the clock.
  class ProtectedPaths
    PATHS = %w[/users /users/sign_in /users/password /users/confirmation /users/unlock].freeze
    WINDOW = 60

    def initialize(app)
      @app = app
      @lock = Mutex.new
      @window = nil
      @counts = Hash.new(0)
    end

    def call(env)
      return @app.call(env) unless env["REQUEST_METHOD"] == "POST" && PATHS.include?(env["PATH_INFO"].delete_suffix("/"))

      now = Time.now.to_i
      limit = Settings.current["protected_posts_per_minute"]
      observed = count(Guards.address(env).to_s, now / WINDOW)
      return @app.call(env) if observed <= limit

      seconds = WINDOW - (now % WINDOW)
      Identity.log("rate limit: #{observed} posts in a minute, #{limit} are allowed") if observed == limit + 1
      Guards.text(429, "Retry later\n", "retry-after" => seconds.to_s, "ratelimit-limit" => limit.to_s, "ratelimit-observed" => observed.to_s,
                                        "ratelimit-remaining" => "0", "ratelimit-reset" => (now + seconds).to_s,
                                        "ratelimit-name" => "throttle_unauthenticated_protected_paths")
    end

    private

    # Only the present window is kept, so the table cannot outgrow a minute's requests.
    def count(address, window)
      @lock.synchronize do
        @counts.clear unless @window == window
        @window = window
        @counts[address] += 1
      end
    end
  end

  # Refuses what is no text before anything takes it for one: NUL (PostgreSQL knows none) and bytes that are not UTF-8.
  class Malformed
    LONGEST_FORM = 65_536

    def initialize(app)
      @app = app
    end

    def call(env)
      return Guards.text(413, "Too large\n") if env["CONTENT_LENGTH"].to_i > LONGEST_FORM
      return Guards.text(400, "Bad request\n") unless text?(env["PATH_INFO"]) && text?(env["QUERY_STRING"]) && text?(form(env)) && text?(credentials(env))

      @app.call(env)
    end

    private

    def form(env)
      return "" unless env["CONTENT_TYPE"].to_s.start_with?("application/x-www-form-urlencoded")

      input = env["rack.input"] or return ""
      body = input.read(LONGEST_FORM).to_s
      input.rewind
      body
    end

    def credentials(env)
      kind, value = env["HTTP_AUTHORIZATION"].to_s.split(" ", 2)
      kind.to_s.casecmp?("basic") ? value.to_s.unpack1("m").to_s : value.to_s
    end

    def text?(raw)
      plain = URI.decode_www_form_component(raw.dup.force_encoding(Encoding::UTF_8))
      plain.valid_encoding? && !plain.include?("\0")
    rescue ArgumentError # a per cent sign that starts nothing
      false
    end
  end

  # A database that is away is nobody's bug: 503, and a line in the journal, not a stack.
  class Database
    def initialize(app)
      @app = app
    end

    def call(env)
      @app.call(env)
    rescue ActiveRecord::ActiveRecordError, PG::Error => error
      raise unless Identity.connection_lost?(error)

      Identity.log("database: #{Identity.first_line(error)}")
      Guards.text(503, "Service unavailable: the database does not answer\n", "retry-after" => "5")
    end
  end
end
