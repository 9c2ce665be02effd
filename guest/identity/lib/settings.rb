# frozen_string_literal: true

require "ipaddr"
require "openssl"
require "uri"
require "yaml"

# The settings file and the secrets it names, read once at start. A wrong one ends the program with the file, the line, and what would be
# right.
class Settings
  # Why a settings file or a secret cannot be used.
  class Error < StandardError; end

  # Exit status for it, EX_CONFIG of sysexits.h: starting again would not help.
  EXIT_STATUS = 78
  FILE = ENV.fetch("RAVE_IDENTITY_SETTINGS", "/etc/rave/identity.yml")

  # Each key with its value if the file does not have it, and what makes a value right.
  KEYS = {
    "listen" => ["127.0.0.1:8080", "an address and a port, such as \"127.0.0.1:8080\"",
                 ->(value) { value.is_a?(String) && value.match?(/\A(?:\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\]):[1-9]\d{0,4}\z/) }],
    "threads" => [3, "a number from 1 to 16", ->(value) { value.is_a?(Integer) && value.between?(1, 16) }],
    "issuer" => [nil, "a URL such as \"https://rave.local:3002/gitlab\", with a path, without a slash at its end",
                 ->(value) { value.is_a?(String) && value.match?(%r{\Ahttps://[A-Za-z0-9.-]+(?::\d+)?/[A-Za-z0-9/_-]*[A-Za-z0-9_-]\z}) }],
    "database_host" => ["/run/postgresql", "the folder of PostgreSQL's socket, an absolute path",
                        ->(value) { value.is_a?(String) && value.match?(%r{\A/[[:graph:]]+\z}) }],
    "database_port" => [5432, "a port number", ->(value) { value.is_a?(Integer) && value.between?(1, 65_535) }],
    "database_name" => ["gitlab", "the name of a database", ->(value) { value.is_a?(String) && value.match?(/\A[a-z_][a-z0-9_]*\z/) }],
    "signing_key" => [nil, "the file with the RSA key, an absolute path", ->(value) { value.is_a?(String) && value.start_with?("/") }],
    "session_secret" => [nil, "the file with the secret, an absolute path", ->(value) { value.is_a?(String) && value.start_with?("/") }],
    "trusted_redirect_page" => [true, "true (a page with a link, as GitLab) or false (status 302)", ->(value) { [true, false].include?(value) }],
    "protected_posts_per_minute" => [10, "a number, at least 1", ->(value) { value.is_a?(Integer) && value >= 1 }],
    "probes_from" => [["127.0.0.0/8", "::1/128"], "a list of networks, such as [\"127.0.0.0/8\"]",
                      ->(value) { value.is_a?(Array) && value.all? { |network| network?(network) } }],
    "faults" => ["/etc/rave/identity-faults.yml", "an absolute path", ->(value) { value.is_a?(String) && value.start_with?("/") }],
  }.freeze
  REQUIRED = KEYS.select { |_, (default, *)| default.nil? }.keys.freeze

  def self.current
    @current ||= new(FILE)
  rescue Error => error
    warn "identity: #{error.message}"
    exit! EXIT_STATUS
  end

  def self.network?(text)
    IPAddr.new(text)
    true
  rescue IPAddr::Error
    false
  end

  attr_reader :signing_key, :session_secret, :probes_from

  def initialize(path)
    @values = Settings.read(path, KEYS, REQUIRED)
    @probes_from = self["probes_from"].map { |network| IPAddr.new(network) }
    @signing_key = Settings.rsa_key(self["signing_key"])
    @session_secret = Settings.secret(self["session_secret"])
  end

  def [](key)
    @values.fetch(key)
  end

  def issuer
    @issuer ||= URI(self["issuer"])
  end

  # Reads a file and checks it against a table such as KEYS.
  def self.read(path, keys, required)
    found = entries(path)
    found.each do |key, (line, value)|
      _, meaning, right = keys.fetch(key) { raise Error, "#{path}:#{line}: unknown key `#{key}`#{suggestion(key, keys)}" }
      raise Error, "#{path}:#{line}: `#{key}` must be #{meaning}" unless right.call(value)
    end
    missing = required.find { |key| !found.key?(key) }
    raise Error, "#{path}: `#{missing}` is missing; it is #{keys[missing][1]}" if missing

    keys.transform_values(&:first).merge(found.transform_values(&:last))
  rescue SystemCallError => error
    raise Error, "could not read the settings file `#{path}`: #{cause(error)}"
  end

  # Each key with its line and its value. The parser's tree knows the lines, and a key that is there twice.
  def self.entries(path)
    text = File.read(path, encoding: "UTF-8")
    values = YAML.safe_load(text) || {}
    raise Error, "#{path}:1: expected lines of `key: value`" unless values.is_a?(Hash)

    keys = YAML.parse(text) ? YAML.parse(text).root.children.each_slice(2).map(&:first) : []
    keys.each_with_object({}) do |key, found|
      line = key.start_line + 1
      raise Error, "#{path}:#{line}: key `#{key.value}` is there twice; the first is in line #{found[key.value].first}" if found.key?(key.value)

      found[key.value] = [line, values[key.value]]
    end
  rescue Psych::SyntaxError => error
    raise Error, "#{path}:#{error.line}: #{[error.problem, error.context].compact.join(" ")}"
  rescue Psych::Exception, ArgumentError => error
    raise Error, "#{path}:1: #{error.message}"
  end

  def self.secret(path)
    value = read_private(path).chomp
    if value.include?("${")
      unfit path, "holds a placeholder `${…}` that nothing has filled in"
    elsif value.start_with?("/")
      unfit path, "holds a path instead of a secret; the file it names should be here"
    elsif !value.match?(/\A[[:graph:]]*\z/) || !value.ascii_only?
      unfit path, "must be one line of printable ASCII without spaces"
    elsif value.length < 32
      unfit path, "has #{value.length} characters; at least 32 are needed"
    end
    value
  end

  def self.rsa_key(path)
    pem = read_private(path)
    key = OpenSSL::PKey::RSA.new(pem)
    unfit path, "holds only the public half of a key" unless key.private?
    unfit path, "has #{key.n.num_bits} bits; at least 2048 are needed" if key.n.num_bits < 2048
    pem
  rescue OpenSSL::PKey::PKeyError
    unfit path, "holds no RSA key in PEM"
  end

  def self.read_private(path)
    File.open(path, encoding: "UTF-8") do |file|
      mode = file.stat.mode & 0o777
      unfit path, format("has mode %04o; it must be 0400", mode) unless (mode & 0o027).zero?
      file.read(65_536).to_s
    end
  rescue SystemCallError => error
    raise Error, "could not read the secret `#{path}`: #{cause(error)}"
  end

  def self.unfit(path, why)
    raise Error, "the secret `#{path}` #{why}"
  end

  def self.cause(error)
    error.message.sub(/ @ .*/, "").sub(/ - .*/, "")
  end

  def self.suggestion(key, keys)
    require "did_you_mean"
    nearest = DidYouMean::SpellChecker.new(dictionary: keys.keys).correct(key).first
    nearest ? ", did you mean `#{nearest}`?" : "; known are #{keys.keys.map { |name| "`#{name}`" }.join(", ")}"
  end

  private_class_method :read_private, :unfit, :cause, :suggestion
end
