# frozen_string_literal: true

require_relative "lib/application"

application = Identity.start

map Settings.current.issuer.path do
  use Guards::Probes
  use Guards::Malformed
  use Guards::ProtectedPaths
  use Faults::TokenEndpoint
  run application
end
