# frozen_string_literal: true

# puma in single mode: one process, few threads, on loopback, behind nginx.
require "socket"
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

# systemd is told once that it serves. puma's own way, which the unit switches off, also tells it every second how busy it is.
if (socket = ENV["NOTIFY_SOCKET"])
  on_booted { Addrinfo.unix(socket.sub(/\A@/, "\0"), :DGRAM).connect { |systemd| systemd.write("READY=1") } }
end

# If one thread closes puma's own pipe while another is still in its write to it, Ruby 3.3 may let the first wait for ever, and the program
# never stops (puma's issue 3677). So whoever is told to stop goes on only when the telling is done.
require "puma/server"
Puma::Server.prepend(Module.new do
  private

  def notify_safely(message)
    @notifying = true
    super
  ensure
    @notifying = false
  end

  def handle_check
    super.tap { sleep 0.01 while @notifying }
  end
end)
