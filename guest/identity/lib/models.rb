# frozen_string_literal: true

require "bcrypt"
require "digest"

# Accounts. They are made by rave-forge; here they sign in.
class User < ActiveRecord::Base
  # Compared with when there is no such account, so that the answer takes as long as for one.
  NOBODY = BCrypt::Password.create(SecureRandom.hex, cost: 10).freeze

  def self.by_login(login)
    return if login.blank? || login.length > 255

    find_by("lower(username) = :login OR lower(email) = :login", login: login.downcase)
  end

  # The account with that name or address and that password.
  def self.by_credentials(login, password)
    user = by_login(login)
    # bcrypt reads 72 bytes; the rest of a longer password would not matter.
    return unless password.bytesize <= 72 && BCrypt::Password.new(user&.password_digest.presence || NOBODY) == password

    user if user&.password_digest.present?
  rescue BCrypt::Errors::InvalidHash
    Identity.log("user #{user.id} has a password digest that is not bcrypt's")
    nil
  end

  def confirmed?
    confirmed_at.present?
  end

  def active?
    state == "active"
  end

  # Group paths, all of them or those with at least one of these access levels.
  def groups(levels = nil)
    found = Namespace.joins("JOIN members ON members.namespace_id = namespaces.id").where(kind: "group", members: { user_id: id })
    found = found.where(members: { access_level: levels }) if levels
    found.order(:path).pluck(:path)
  end
end

class Namespace < ActiveRecord::Base
end

# A browser that has signed in. The cookie holds the identifier, the table its digest.
class UserSession < ActiveRecord::Base
  LIFETIME = 7 * 24 * 3600
  REMEMBERED = 14 * 24 * 3600

  belongs_to :user

  # Prints the identifier of a new session.
  def self.start(user, remember)
    where("expires_at < ?", Time.now.utc).delete_all
    identifier = SecureRandom.urlsafe_base64(32)
    create!(user: user, digest: Digest::SHA256.hexdigest(identifier), expires_at: Time.now.utc + (remember ? REMEMBERED : LIFETIME))
    identifier
  end

  def self.find_live(identifier)
    return unless identifier.is_a?(String)

    found = includes(:user).find_by(digest: Digest::SHA256.hexdigest(identifier))
    found if found && found.expires_at > Time.now.utc && found.user.active?
  end

  def self.finish(identifier)
    where(digest: Digest::SHA256.hexdigest(identifier)).delete_all if identifier.is_a?(String)
  end
end

# What was given out on behalf of an account that is blocked now counts as revoked. Prepended to doorkeeper's codes and tokens.
module OfActiveOwner
  def revoked?
    super || !(resource_owner_id.nil? || User.exists?(id: resource_owner_id, state: "active"))
  end
end
