// rate-limiter-flexible, redlock and redis-semaphore: all by scripts.
const assert = require('node:assert');
const Redis = require('ioredis');
const { createClient } = require('redis');
const { RateLimiterRedis, BurstyRateLimiter } = require('rate-limiter-flexible');
const { default: Redlock } = require('redlock');
const { Mutex, RedlockMutex } = require('redis-semaphore');
const { run } = require('./until');

async function limits(storeClient, useRedisPackage, keyPrefix) {
  const limiter = new RateLimiterRedis({ storeClient, useRedisPackage, keyPrefix, points: 3, duration: 3600, blockDuration: 7200 });
  const left = [];
  for (let i = 0; i < 3; i++) left.push((await limiter.consume('visitor')).remainingPoints);
  assert.deepEqual(left, [2, 1, 0]);
  await assert.rejects(limiter.consume('visitor'), (r) => r.msBeforeNext > 3600000);
  assert.equal((await limiter.get('visitor')).consumedPoints, 4);
  assert.equal((await limiter.penalty('other', 2)).consumedPoints, 2);
  assert.equal((await limiter.reward('other', 1)).consumedPoints, 1);
  assert.equal(await limiter.delete('visitor'), true);
  assert.equal((await limiter.consume('visitor')).remainingPoints, 2);
  const many = await Promise.allSettled(Array.from({ length: 10 }, () => limiter.consume('at once')));
  assert.equal(many.filter((r) => r.status === 'fulfilled').length, 3);
  const bursty = new BurstyRateLimiter(
    new RateLimiterRedis({ storeClient, useRedisPackage, keyPrefix: keyPrefix + 'b', points: 1, duration: 3600 }),
    new RateLimiterRedis({ storeClient, useRedisPackage, keyPrefix: keyPrefix + 'c', points: 1, duration: 3600 }));
  await bursty.consume('x');
  await bursty.consume('x');
  await assert.rejects(bursty.consume('x'), (r) => r.msBeforeNext > 0);
}

async function redlock(client) {
  const locks = new Redlock([client]);
  let lock = await locks.acquire(['a', 'b'], 300000);
  await assert.rejects(new Redlock([client], { retryCount: 0 }).acquire(['b'], 300000), /quorum|unable/i);
  lock = await lock.extend(600000);
  assert.ok((await client.pttl('a')) > 300000);
  await lock.release();
  assert.equal(await client.exists('a', 'b'), 0);
  let inside = 0;
  const counted = [];
  await Promise.all([1, 2, 3].map(() => new Redlock([client], { retryCount: -1, retryDelay: 10 }).using(['c'], 300000, async () => {
    assert.equal(++inside, 1, 'two hold one lock');
    const n = Number(await client.get('counted'));
    await client.set('counted', n + 1);
    counted.push(n + 1);
    inside--;
  })));
  assert.deepEqual(counted, [1, 2, 3]);
}

// Its counting semaphores are made of sorted sets, which a cache has not.
async function semaphore(client) {
  const mutex = new Mutex(client, 'only', { lockTimeout: 300000 });
  await mutex.acquire();
  assert.equal(await new Mutex(client, 'only', { acquireAttemptsLimit: 1 }).tryAcquire(), false);
  assert.equal(mutex.isAcquired, true);
  await mutex.release();
  const again = new RedlockMutex([client], 'only', { lockTimeout: 300000 });
  await again.acquire();
  await again.release();
  assert.equal(await client.exists('mutex:only'), 0);
}

run(async (port) => {
  const io = new Redis({ host: '127.0.0.1', port });
  const nodeRedis = createClient({ url: `redis://127.0.0.1:${port}` });
  await nodeRedis.connect();
  await limits(io, false, 'io');
  await limits(nodeRedis, true, 'node');
  await redlock(io);
  await semaphore(io);
});
