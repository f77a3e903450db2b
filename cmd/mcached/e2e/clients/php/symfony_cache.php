<?php
// Symfony's cache over phpredis and over Predis, with tags.
require '/usr/share/php/Symfony/Component/Cache/autoload.php';
require '/usr/share/php/Predis/autoload.php';

use Symfony\Component\Cache\Adapter\RedisAdapter;
use Symfony\Component\Cache\Adapter\TagAwareAdapter;
use Symfony\Contracts\Cache\ItemInterface;

function check($what, $got, $want) {
    if ($got !== $want) {
        fwrite(STDERR, "$what: got " . var_export($got, true) . ', want ' . var_export($want, true) . "\n");
        exit(1);
    }
}

foreach ([Redis::class, Predis\Client::class] as $class) {
    $redis = RedisAdapter::createConnection("redis://127.0.0.1:$argv[1]/1", ['class' => $class]);
    $cache = new RedisAdapter($redis, 'app', 300);
    $made = 0;
    $make = function (ItemInterface $item) use (&$made) {
        $item->expiresAfter(300);
        return ['made' => ++$made];
    };
    check("$class get", [$cache->get('k', $make), $cache->get('k', $make)], [['made' => 1], ['made' => 1]]);
    foreach (['a', 'b', 'c'] as $key) {
        $cache->saveDeferred($cache->getItem($key)->set("of $key"));
    }
    check("$class commit", $cache->commit(), true);
    $got = [];
    foreach ($cache->getItems(['a', 'none', 'c']) as $key => $item) $got[$key] = $item->get();
    ksort($got);
    check("$class getItems", $got, ['a' => 'of a', 'c' => 'of c', 'none' => null]);
    check("$class deleteItems", [$cache->deleteItems(['a', 'b']), $cache->hasItem('a'), $cache->hasItem('c')], [true, false, true]);
    check("$class clear", [$cache->clear(), $cache->hasItem('c')], [true, false]);

    // RedisTagAwareAdapter refuses every server that may evict any key.
    $tagged = new TagAwareAdapter(new RedisAdapter($redis, 'tagged'));
    foreach (['1' => ['red'], '2' => ['red', 'blue'], '3' => ['blue']] as $key => $tags) {
        $tagged->get("item$key", function (ItemInterface $item) use ($tags, $key) {
            $item->tag($tags);
            return $key;
        });
    }
    check("$class invalidateTags", $tagged->invalidateTags(['red']), true);
    check("$class tags", [$tagged->hasItem('item1'), $tagged->hasItem('item2'), $tagged->hasItem('item3')], [false, false, true]);
}
echo "ok\n";
