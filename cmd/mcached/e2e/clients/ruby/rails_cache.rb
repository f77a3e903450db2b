# The cache of Rails, config.cache_store = :redis_cache_store.
require "logger"
require "active_support"
require "active_support/cache"
require "active_support/cache/redis_cache_store"
require "active_support/notifications"
require "active_support/core_ext/integer/time"

def check(what, got, want)
  abort "#{what}: got #{got.inspect}, want #{want.inspect}" unless got == want
end

trouble = lambda { |method:, returning:, exception:| abort "#{method}: #{exception}" }
cache = ActiveSupport::Cache::RedisCacheStore.new(url: "redis://127.0.0.1:#{ARGV[0]}/1", namespace: "app", error_handler: trouble,
  read_timeout: 60, write_timeout: 60) # however slow the machine is
made = 0
2.times { check "fetch", cache.fetch("k", expires_in: 5.minutes, race_condition_ttl: 10.seconds) { made += 1 }, 1 }
check "ttl", (4.minutes..11.minutes).cover?(cache.redis.ttl("app:k")), true
check "write_multi", cache.write_multi({ "a" => { x: 1 }, "b" => [2] }, expires_in: 5.minutes).nil?, false
check "read_multi", cache.read_multi("a", "none", "b"), { "a" => { x: 1 }, "b" => [2] }
check "fetch_multi", cache.fetch_multi("a", "new") { |key| key.upcase }, { "a" => { x: 1 }, "new" => "NEW" }
check "increment", [cache.increment("n", 1, expires_in: 60), cache.increment("n", 5), cache.decrement("n", 2)], [1, 6, 4]
check "counted", cache.read("n", raw: true), "4"
check "unless_exist", [cache.write("a", 1, unless_exist: true), cache.write("once", 1, unless_exist: true)], [false, true]
big = "x" * 3_000_000
cache.write("big", big, compress: false)
check "big", cache.read("big") == big, true
20.times { |i| cache.write("views/#{i}", i) }
cache.delete_matched("views/*")
check "delete_matched", [cache.exist?("views/7"), cache.exist?("a")], [false, true]
check "delete", [cache.delete("a"), cache.exist?("a")], [1, false]
check "delete_multi", cache.delete_multi(%w[b none]), 1
cache.clear
check "clear", cache.redis.dbsize, 0
puts "ok"
