import { defineConfig } from 'vitest/config'

/** `npm run test:slow` runs the tests that take half a minute or more each; they are left out otherwise. */
const slow = process.env.npm_lifecycle_event === 'test:slow'
const slowTests = 'tests/**/*.slow.test.ts'
/** How much memory a process takes tells of a leak only where no earlier test has left it memory to reuse. */
const memoryTests = 'src/**/*-memory.test.ts'

const quick = [
  // Files share a process each after the other: reading the modules anew for every file cost a quarter of all tests.
  {
    extends: true as const,
    test: {
      name: 'shared',
      include: ['src/**/*.test.ts', 'tests/**/*.test.ts'],
      exclude: [slowTests, memoryTests],
      isolate: false,
    },
  },
  { extends: true as const, test: { name: 'alone', include: [memoryTests] } },
]

export default defineConfig({
  test: {
    projects: slow ? [{ extends: true, test: { name: 'slow', include: [slowTests] } }] : quick,
    // Native sessions and worker threads do not mix, and a process that crashes takes no other test file along.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // What a test changes in its process ends with it, also when it fails: the next file may run there.
    unstubEnvs: true,
    restoreMocks: true,
  },
})
