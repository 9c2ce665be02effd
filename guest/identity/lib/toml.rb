# frozen_string_literal: true

# Reads the part of TOML that a flat settings file needs: comments, and a line `key = value` for each key, where a value is a string, an
# integer, a boolean, or a list of strings.
module Toml
  # What is wrong, and in which line.
  class Error < StandardError
    attr_reader :line

    def initialize(line, message)
      super(message)
      @line = line
    end
  end

  Value = Struct.new(:value, :line)

  COMMENT = /\s*(?:#.*)?\z/.freeze
  STRING = /"(?:[^"\\\p{Cntrl}]|\\["\\])*"/.freeze

  def self.parse(text)
    raise Error.new(1, "the file is not UTF-8") unless text.valid_encoding?

    text.each_line(chomp: true).with_index(1).with_object({}) do |(line, number), found|
      next if line.match?(/\A#{COMMENT}/)

      key, rest = line.match(/\A\s*([A-Za-z0-9_-]+)\s*=\s*(.*)\z/)&.captures
      raise Error.new(number, "expected `key = value`") unless key
      raise Error.new(number, "key `#{key}` is there twice; the first is in line #{found[key].line}") if found.key?(key)

      found[key] = Value.new(value(rest, number, key), number)
    end
  end

  def self.value(text, line, key)
    case text
    when /\A(#{STRING})#{COMMENT}/ then string(Regexp.last_match(1))
    when /\A([+-]?\d+)#{COMMENT}/ then Integer(Regexp.last_match(1), 10)
    when /\A(true|false)#{COMMENT}/ then Regexp.last_match(1) == "true"
    when /\A\[\s*((?:#{STRING}\s*,\s*)*(?:#{STRING})?)\s*\]#{COMMENT}/ then Regexp.last_match(1).scan(STRING).map { |item| string(item) }
    else raise Error.new(line, "the value of `#{key}` must be a \"string\", an integer, true, false, or a [\"list\", \"of strings\"]")
    end
  end

  def self.string(quoted)
    quoted[1..-2].gsub(/\\(.)/, '\1')
  end

  private_class_method :value, :string
end
