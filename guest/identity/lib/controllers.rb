# frozen_string_literal: true

require_relative "base_controllers"

module Identity
  # Signing in and out.
  class SessionsController < PageController
    WRONG = "Invalid login or password."
    BLOCKED = "Your account has been blocked. Please contact your GitLab administrator if you think this is an error."
    UNCONFIRMED = "You have to confirm your email address before continuing."

    def new
      redirect_to root_url if current_user
    end

    def create
      login, password, remember = credentials
      user = User.by_credentials(login, password)
      if user.nil?
        refuse("wrong login or password")
      elsif !user.active?
        turn_back(user, "blocked", BLOCKED)
      elsif !user.confirmed?
        turn_back(user, "unconfirmed", UNCONFIRMED)
      else
        return_to = sign_in_user(user, remember)
        Identity.log("sign-in: user #{user.id}")
        redirect_to return_to ? URI.join(Settings.current["issuer"], return_to).to_s : root_url
      end
    end

    def destroy
      user = current_user
      sign_out_user
      Identity.log("sign-out: user #{user.id}") if user
      redirect_to new_user_session_url
    end

    private

    def credentials
      form = params[:user]
      form = {} unless form.respond_to?(:values_at)
      login, password, remember = form.values_at(:login, :password, :remember_me)
      [login.is_a?(String) ? login.strip : "", password.is_a?(String) ? password : "", remember == "1"]
    end

    def refuse(why)
      Identity.log("sign-in refused: #{why}")
      flash.now[:alert] = WRONG
      render :new, status: :unprocessable_entity
    end

    # Devise sends back to the form with a redirect when the password was right and the account is not.
    def turn_back(user, why, message)
      Identity.log("sign-in refused: user #{user.id} is #{why}")
      flash[:alert] = message
      redirect_to new_user_session_url
    end
  end

  # Signing up is off, and says so as GitLab does: with the form for signing in.
  class RegistrationsController < PageController
    def closed
      redirect_to new_user_session_url
    end
  end

  # Who is signed in, and what is not here.
  class HomeController < PageController
    skip_forgery_protection only: :missing

    def show
      redirect_to new_user_session_url unless current_user
    end

    def missing
      @title = "Page not found (404)"
      @message = "The page could not be found or you don't have permission to view it."
      render "message", status: :not_found
    end
  end

  # As GitLab, trusted applications (and those that have a live token) are answered with a page whose link is the redirect.
  class AuthorizationsController < Doorkeeper::AuthorizationsController
    private

    def redirect_or_render(auth)
      page = action_name == "new" && auth.is_a?(Doorkeeper::OAuth::CodeResponse) && !pre_auth.form_post_response?
      return super unless page && Settings.current["trusted_redirect_page"]

      session.delete(:user_return_to)
      @redirect_uri = auth.redirect_uri
      render "identity/authorizations/redirect"
    end
  end

  # `plain` is not accepted (OnlyS256), so it is not offered.
  class DiscoveryController < Doorkeeper::OpenidConnect::DiscoveryController
    private

    def provider_response
      super.merge(code_challenge_methods_supported: %w[S256])
    end
  end
end
