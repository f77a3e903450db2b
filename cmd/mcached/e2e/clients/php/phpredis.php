<?php
// phpredis as an application uses it.
function check($what, $got, $want) {
    if ($got !== $want) {
        fwrite(STDERR, "$what: got " . var_export($got, true) . ', want ' . var_export($want, true) . "\n");
        exit(1);
    }
}

$r = new Redis();
$r->connect('127.0.0.1', (int)$argv[1]);
check('set', $r->set('k', 'v', ['nx', 'ex' => 100]), true);
check('set nx', $r->set('k', 'w', ['nx', 'ex' => 100]), false);
check('ttl', $r->ttl('k') > 90, true);
check('mset', $r->mset(['a' => 1, 'b' => 2]), true);
check('mget', $r->mget(['a', 'none', 'b']), ['1', false, '2']);
check('multi', $r->multi()->set('n', 1)->incr('n')->get('n')->exec(), [true, 2, '2']);
check('pipeline', $r->pipeline()->incr('n')->get('n')->exec(), [3, '3']);
$r->watch('n');
$other = new Redis();
$other->connect('127.0.0.1', (int)$argv[1]);
$other->incr('n');
check('a watched change', $r->multi()->set('n', 0)->exec(), false);
check('hmset', $r->hMSet('h', ['a' => '1', 'b' => '2']), true);
check('hgetall', $r->hGetAll('h'), ['a' => '1', 'b' => '2']);
check('hincrby', $r->hIncrBy('h', 'a', 4), 5);
check('sadd', $r->sAdd('s', 'x', 'y'), 2);
$members = $r->sMembers('s');
sort($members);
check('smembers', $members, ['x', 'y']);
check('eval', $r->eval("return redis.call('get', KEYS[1])", ['n'], 1), '4');
$found = 0;
$r->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
for ($i = 0; $i < 200; $i++) $r->set("scan:$i", $i);
$cursor = null;
while ($keys = $r->scan($cursor, 'scan:*')) $found += count($keys);
check('scan', $found, 200);
check('unlink', $r->unlink('a', 'b', 'none'), 2);
check('select', $r->select(1), true);
check('of database 1', $r->get('k'), false);
foreach ([Redis::SERIALIZER_PHP, Redis::SERIALIZER_IGBINARY] as $serializer) {
    $r->setOption(Redis::OPT_SERIALIZER, $serializer);
    $r->set('object', ['a' => [1, 2.5, null]]);
    check('serialized', $r->get('object'), ['a' => [1, 2.5, null]]);
}
$r->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_NONE);
$r->setOption(Redis::OPT_COMPRESSION, Redis::COMPRESSION_ZSTD);
$r->setOption(Redis::OPT_PREFIX, 'p:');
$r->set('long', str_repeat('x', 3000000));
check('compressed', strlen($r->get('long')), 3000000);
check('flushdb', $r->flushDB(), true);
check('left in database 1', $r->dbSize(), 0);
echo "ok\n";
