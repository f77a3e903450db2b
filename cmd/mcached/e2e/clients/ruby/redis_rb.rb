# redis-rb as an application uses it.
require "redis"

def check(what, got, want)
  abort "#{what}: got #{got.inspect}, want #{want.inspect}" unless got == want
end

r = Redis.new(host: "127.0.0.1", port: ARGV[0].to_i, db: 1, timeout: 60) # however slow the machine is
check "set", r.set("k", "v", ex: 100), "OK"
check "set nx", r.set("k", "w", nx: true), false
check "ttl", r.ttl("k") > 90, true
r.mset("a", 1, "b", 2)
check "mget", r.mget("a", "none", "b"), ["1", nil, "2"]
check "mapped_mget", r.mapped_mget("a", "b"), { "a" => "1", "b" => "2" }
check "multi", r.multi { |t| t.set("n", 1); t.incr("n"); t.get("n") }, ["OK", 2, "2"]
check "pipelined", r.pipelined { |p| 200.times { |i| p.set("scan:#{i}", i) } }.size, 200
r.watch("n") do
  Redis.new(port: ARGV[0].to_i, db: 1).incr("n")
  check "a watched change", r.multi { |t| t.set("n", 0) }, nil
end
check "scan_each", r.scan_each(match: "scan:*", count: 50).to_a.uniq.size, 200
r.hset("h", "a", "1", "b", "2")
check "hgetall", r.hgetall("h"), { "a" => "1", "b" => "2" }
r.sadd("s", %w[x y])
check "smembers", r.smembers("s").sort, %w[x y]
check "eval", r.eval("return redis.call('incrby', KEYS[1], ARGV[1])", ["n"], [7]), 10
sha = r.script(:load, "return ARGV[1]")
check "evalsha", r.evalsha(sha, argv: ["x"]), "x"

heard = []
ear = Thread.new do
  Redis.new(port: ARGV[0].to_i).subscribe("news") do |on|
    on.subscribe { r.publish("news", "hello") }
    on.message { |channel, message| heard << message; Thread.exit }
  end
end
abort "no message came" unless ear.join(60)
check "subscribe", heard, ["hello"]
check "flushdb", r.flushdb, "OK"
puts "ok"
