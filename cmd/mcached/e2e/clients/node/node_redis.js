// node-redis: both protocols, transactions, publications, its client-side cache.
const assert = require('node:assert');
const { BasicClientSideCache, createClient, WatchError } = require('redis');
const { run, until } = require('./until');

async function nodeRedis(port, RESP) {
  const c = createClient({ socket: { host: '127.0.0.1', port }, RESP, name: 'node', unstableResp3: true });
  c.on('error', (e) => { throw e; });
  await c.connect();
  assert.equal(await c.ping(), 'PONG');
  assert.equal(await c.set('node', 'v', { EX: 100 }), 'OK');
  assert.equal(await c.get('node'), 'v');
  assert.equal(await c.get('absent'), null);
  assert.ok((await c.ttl('node')) > 90);
  assert.deepEqual(await c.mGet(['node', 'absent']), ['v', null]);
  assert.equal(await c.incrBy('count', 5), 5);
  assert.deepEqual(await Promise.all([c.incr('count'), c.incr('count'), c.del('count')]), [6, 7, 1]);
  const seen = [];
  for await (const keys of c.scanIterator({ COUNT: 100 })) seen.push(...[keys].flat());
  assert.deepEqual(seen, ['node']);
  assert.equal(await c.clientGetName(), 'node');
  const key = 'series' + RESP;
  assert.equal(await c.ts.add(key, 1000, 1.5, { LABELS: { proto: String(RESP) } }), 1000);
  assert.equal(await c.ts.add(key, 2000, 2.5), 2000);
  assert.deepEqual((await c.ts.range(key, '-', '+')).map((s) => [s.timestamp, s.value]), [[1000, 1.5], [2000, 2.5]]);
  assert.deepEqual([...await c.ts.queryIndex('proto=' + RESP)], [key]);
  const got = await c.ts.mRange('-', '+', 'proto=' + RESP);
  assert.equal(JSON.stringify(got).includes('2.5'), true);
  assert.equal((await c.ts.info(key)).totalSamples, 2);
  await assert.rejects(c.ts.get('absent'), /TSDB: the key does not exist/);
  assert.equal(await c.flushAll(), 'OK');
  await c.close();
}

// Hashes, sets, transactions, publications and the client's own cache of what it reads.
async function nodeRedisMore(port) {
  const cache = new BasicClientSideCache({ ttl: 0, maxEntries: 0, evictPolicy: 'LRU' });
  const c = createClient({ socket: { host: '127.0.0.1', port }, RESP: 3, clientSideCache: cache });
  const other = createClient({ socket: { host: '127.0.0.1', port }, RESP: 3 });
  for (const x of [c, other]) {
    x.on('error', (e) => { throw e; });
    await x.connect();
  }
  assert.equal(await c.hSet('h', { a: '1', b: '2' }), 2);
  assert.deepEqual({ ...await other.hGetAll('h') }, { a: '1', b: '2' });
  assert.equal(await c.hIncrBy('h', 'a', 5), 6);
  assert.equal(await c.sAdd('s', ['x', 'y', 'z']), 3);
  assert.deepEqual([...await other.sMembers('s')].sort(), ['x', 'y', 'z']);
  assert.deepEqual(await other.multi().set('m', '1').incr('m').hLen('h').exec(), ['OK', 2, 2]);

  await other.set('k', 'one');
  assert.equal(await c.get('k'), 'one');
  assert.equal(await c.get('k'), 'one');
  assert.ok(cache.stats().hitCount >= 1, 'nothing was read from the cache');
  await other.set('k', 'two');
  await until('the cache to forget', async () => (await c.get('k')) === 'two');
  await other.hSet('h', 'a', 'new');
  await until('the cache to forget a hash', async () => (await c.hGet('h', 'a')) === 'new');

  await c.watch('k');
  await other.set('k', 'three');
  await assert.rejects(c.multi().set('k', 'lost').exec(), WatchError);

  const heard = [];
  const ear = other.duplicate();
  ear.on('error', (e) => { throw e; });
  await ear.connect();
  await ear.subscribe('news', (message, channel) => heard.push(channel + ':' + message));
  await ear.pSubscribe('n*', (message, channel) => heard.push('p:' + channel + ':' + message));
  assert.equal(await other.publish('news', 'hello'), 2);
  await until('the messages', () => heard.length === 2);
  assert.deepEqual(heard, ['news:hello', 'p:news:hello']);
  for (const x of [c, other, ear]) await x.close();
}

run(async (port) => {
  await nodeRedis(port, 2);
  await nodeRedis(port, 3);
  await nodeRedisMore(port);
});
