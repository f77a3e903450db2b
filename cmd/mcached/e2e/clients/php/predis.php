<?php
// Predis, which is PHP alone.
require '/usr/share/php/Predis/autoload.php';
function check($what, $got, $want) {
    if ($got != $want) {
        fwrite(STDERR, "$what: got " . var_export($got, true) . ', want ' . var_export($want, true) . "\n");
        exit(1);
    }
}

$c = new Predis\Client(['scheme' => 'tcp', 'host' => '127.0.0.1', 'port' => (int)$argv[1], 'database' => 1]);
check('set', (string)$c->set('k', 'v', 'EX', 100), 'OK');
check('get', $c->get('k'), 'v');
check('ttl', $c->ttl('k') > 90, true);
check('mset', (string)$c->mset(['a' => 1, 'b' => 2]), 'OK');
check('mget', $c->mget('a', 'none', 'b'), ['1', null, '2']);
$answers = $c->pipeline(function ($p) {
    for ($i = 0; $i < 200; $i++) $p->set("scan:$i", $i);
    $p->get('scan:7');
});
check('pipeline', [count($answers), $answers[200]], [201, '7']);
$answers = $c->transaction(function ($t) {
    $t->set('n', 1);
    $t->incr('n');
});
check('transaction', $answers[1], 2);
$answers = $c->transaction(['cas' => true, 'watch' => 'n', 'retry' => 3], function ($t) {
    $n = $t->get('n');
    $t->multi();
    $t->set('n', $n + 5);
});
check('cas', $c->get('n'), '7');
$found = 0;
foreach (new Predis\Collection\Iterator\Keyspace($c, 'scan:*') as $key) $found++;
check('scan', $found, 200);
$c->hmset('h', ['a' => '1', 'b' => '2']);
check('hgetall', $c->hgetall('h'), ['a' => '1', 'b' => '2']);
check('hscan', iterator_to_array(new Predis\Collection\Iterator\HashKey($c, 'h')), ['a' => '1', 'b' => '2']);
$c->sadd('s', ['x', 'y']);
check('scard', $c->scard('s'), 2);
check('eval', $c->eval("return {KEYS[1], ARGV[1]}", 1, 'a', 'b'), ['a', 'b']);

$handler = new Predis\Session\Handler($c, ['gc_maxlifetime' => 300]);
check('session write', $handler->write('id', 'data'), true);
check('session read', $handler->read('id'), 'data');
check('session destroy', [$handler->destroy('id'), $handler->read('id')], [true, '']);
check('flushdb', (string)$c->flushdb(), 'OK');
echo "ok\n";
