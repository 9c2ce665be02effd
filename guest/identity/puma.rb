# frozen_string_literal: true

# puma in single mode: one process, few threads, on loopback, behind nginx.
require_relative "lib/settings"

settings = Settings.current
environment "production"
rackup File.expand_path("config.ru", __dir__)
bind "tcp://#{settings["listen"]}"
threads settings["threads"], settings["threads"]
workers 0
raise_exception_on_sigterm false
# An error outside of the application, such as a request that is not HTTP: no stack for the client.
lowlevel_error_handler { |_error| [500, { "content-type" => "text/plain" }, ["Internal error\n"]] }
