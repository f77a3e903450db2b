// Keyv, Cacheable and cache-manager over @keyv/redis: what they do with many keys.
import assert from 'node:assert';
import { Keyv } from 'keyv';
import KeyvRedis, { createKeyv } from '@keyv/redis';
import { Cacheable } from 'cacheable';
import { createCache } from 'cache-manager';
import until from './until.js';

async function keyv(url) {
  const k = createKeyv(url, { namespace: 'users' });
  k.on('error', (e) => { throw e; });
  assert.equal(await k.set('a', { name: 'x' }, 100000), true);
  assert.deepEqual(await k.get('a'), { name: 'x' });
  await k.setMany([{ key: 'b', value: 1 }, { key: 'c', value: [2], ttl: 100000 }]);
  assert.deepEqual(await k.getMany(['a', 'none', 'b', 'c']), [{ name: 'x' }, undefined, 1, [2]]);
  assert.deepEqual(await k.hasMany(['a', 'none']), [true, false]);
  const seen = [];
  for await (const [key] of k.iterator()) seen.push(key);
  assert.deepEqual(seen.sort(), ['a', 'b', 'c']);
  assert.equal(await k.deleteMany(['a', 'b']), true);
  assert.deepEqual(await k.getMany(['a', 'b', 'c']), [undefined, undefined, [2]]);
  const others = new Keyv(new KeyvRedis(url), { namespace: 'others' });
  await others.set('c', 'stays');
  await k.clear();
  assert.equal(await k.get('c'), undefined);
  assert.equal(await others.get('c'), 'stays');
  await k.disconnect();
  await others.disconnect();
}

async function cacheable(url) {
  const cache = new Cacheable({ secondary: new KeyvRedis(url) });
  cache.on('error', (e) => { throw e; });
  assert.equal(await cache.setMany([{ key: 'a', value: 1, ttl: '1h' }, { key: 'b', value: 'two' }]), true);
  await cache.primary.clear();
  assert.deepEqual(await cache.getMany(['a', 'none', 'b']), [1, undefined, 'two']);
  let made = 0;
  const wrapped = cache.wrap(async (n) => { made++; return n * 2; }, { ttl: '1h', keyPrefix: 'double' });
  assert.deepEqual([await wrapped(4), await wrapped(4), made], [8, 8, 1]);
  assert.equal(await cache.deleteMany(['a', 'b']), true);
  assert.equal(await cache.get('a'), undefined);
  await cache.disconnect();
}

async function cacheManager(url) {
  const cache = createCache({ stores: [createKeyv(url)], ttl: 100000 });
  await cache.mset([{ key: 'a', value: 1 }, { key: 'b', value: { two: 2 } }]);
  assert.deepEqual(await cache.mget(['a', 'none', 'b']), [1, undefined, { two: 2 }]);
  const left = (await cache.ttl('a')) - Date.now();
  assert.ok(left > 50000 && left <= 100000, 'left to live: ' + left);
  let made = 0;
  for (let i = 0; i < 2; i++) assert.equal(await cache.wrap('wrapped', async () => ++made), 1);
  await cache.mdel(['a', 'b']);
  assert.deepEqual(await cache.mget(['a', 'b']), [undefined, undefined]);
  await cache.clear();
  assert.equal(await cache.get('wrapped'), undefined);
  await cache.disconnect();
}

until.run(async (port) => {
  await keyv(`redis://127.0.0.1:${port}/1`);
  await cacheable(`redis://127.0.0.1:${port}/2`);
  await cacheManager(`redis://127.0.0.1:${port}/3`);
});
