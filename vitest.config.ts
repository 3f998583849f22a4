import { defineConfig } from 'vitest/config'

/** `npm run test:slow` runs the tests that take half a minute or more each; they are left out otherwise. */
const slow = process.env.npm_lifecycle_event === 'test:slow'

export default defineConfig({
  test: {
    include: slow ? ['tests/**/*.slow.test.ts'] : ['src/**/*.test.ts', 'tests/**/*.test.ts'],
    exclude: slow ? [] : ['tests/**/*.slow.test.ts'],
    // Native sessions and worker threads do not mix; separate processes also keep one crash from hiding the other results.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
