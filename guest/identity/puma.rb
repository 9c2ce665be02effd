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

# Of two threads that write to puma's own pipe and close it, the one that closes can wait for ever (puma's issue 3677), and the program
# never stops. A write past Ruby's buffer, as later versions of puma do it, cannot get into its way.
require "puma/server"
Puma::Server.prepend(Module.new do
  private

  def notify_safely(message)
    @notify.syswrite(message)
  rescue IOError, NoMethodError, Errno::EPIPE, Errno::EBADF
    # It is stopping already.
  end
end)
