<?php
// Sessions of phpredis with locking: three requests of a visitor count 1, 2, 3,
// one after the other and at the same time.
$port = $argv[1];
ini_set('session.save_handler', 'redis');
ini_set('session.save_path', "tcp://127.0.0.1:$port");
ini_set('session.use_cookies', '0');
ini_set('session.cache_limiter', '');
ini_set('redis.session.locking_enabled', '1');
ini_set('redis.session.lock_retries', '-1'); // however slow the machine is

if (isset($argv[2])) { // a request
    session_id($argv[2]);
    session_start();
    $n = ($_SESSION['n'] ?? 0) + 1;
    usleep(20000);
    $_SESSION['n'] = $n;
    session_write_close();
    echo $n;
    exit(0);
}

function request($port, $id) {
    $p = popen(escapeshellarg(PHP_BINARY) . ' ' . escapeshellarg(__FILE__) . " $port $id", 'r');
    return $p;
}
$counts = [];
for ($i = 0; $i < 3; $i++) {
    $p = request($port, 'alone');
    $counts[] = (int)stream_get_contents($p);
    pclose($p);
}
if ($counts !== [1, 2, 3]) {
    fwrite(STDERR, 'one after the other: ' . implode(', ', $counts) . "\n");
    exit(1);
}
$requests = [request($port, 'together'), request($port, 'together'), request($port, 'together')];
$counts = [];
foreach ($requests as $p) {
    $counts[] = (int)stream_get_contents($p);
    pclose($p);
}
sort($counts);
if ($counts !== [1, 2, 3]) {
    fwrite(STDERR, 'at the same time: ' . implode(', ', $counts) . "\n");
    exit(1);
}
session_id('alone');
session_start();
session_destroy();
session_id('alone');
session_start();
if (isset($_SESSION['n'])) {
    fwrite(STDERR, "a session was destroyed, and is there\n");
    exit(1);
}
echo "ok\n";
