# frozen_string_literal: true

module Identity
  # Links and redirects name the public origin, whatever the request's Host said.
  module PublicUrls
    def default_url_options
      Identity.public_url
    end
  end

  # What answers programs.
  class ApiController < ActionController::API
    include PublicUrls
  end

  # What answers browsers.
  class PageController < ActionController::Base
    include PublicUrls

    prepend_view_path File.expand_path("../views", __dir__)
    layout "page"
    protect_from_forgery with: :exception
    helper_method :current_user
    # Pages are HTML, whatever else a browser asks for.
    prepend_before_action { request.format = :html }
    before_action :set_headers
    rescue_from ActionController::InvalidAuthenticityToken, with: :change_rejected

    def current_user
      @current_user ||= UserSession.find_live(session[:identifier])&.user
    end

    private

    def sign_in_user(user, remember)
      return_to = session[:user_return_to]
      sign_out_user
      session[:identifier] = UserSession.start(user, remember)
      session[:remember] = true if remember
      keep_remembered
      return_to
    end

    def sign_out_user
      UserSession.finish(session[:identifier])
      reset_session
      @current_user = nil
    end

    def keep_remembered
      request.session_options[:expire_after] = UserSession::REMEMBERED if session[:remember]
    end

    # The consent form's answer is a redirect to the client, which browsers count as a form's target.
    def set_headers
      keep_remembered
      response.headers["Cache-Control"] = "no-store"
      response.headers["Content-Security-Policy"] =
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self' https:; frame-ancestors 'none'; base-uri 'none'"
    end

    def change_rejected
      @title = "The change you requested was rejected (422)"
      @message = "Make sure you have access to the thing you tried to change."
      render "message", status: :unprocessable_entity
    end
  end
end
