/** Which things a text mentions: the 80 categories of COCO with words that people use for them, and whatever names a data set brings. */

/** Other words for COCO's categories (cocodataset.org); written for this project, after the idea of Rohrbach et al. 2018 §3.1. */
// biome-ignore format: a table
const synonyms: Readonly<Record<string, readonly string[]>> = {
  person: [
    'people', 'man', 'men', 'woman', 'women', 'boy', 'girl', 'child', 'children', 'kid', 'baby', 'toddler', 'lady', 'guy', 'adult', 'teenager', 'pedestrian',
    'rider', 'cyclist', 'skier', 'snowboarder', 'surfer', 'skateboarder', 'player', 'batter', 'pitcher', 'catcher', 'umpire', 'chef', 'cook', 'driver', 'officer',
    'policeman', 'crowd', 'spectator', 'passenger', 'worker', 'student', 'couple', 'family', 'bride', 'groom',
  ],
  bicycle: ['bike'], car: ['automobile', 'sedan', 'suv', 'taxi', 'cab'], motorcycle: ['motorbike', 'scooter', 'moped'],
  airplane: ['plane', 'aeroplane', 'aircraft', 'jet', 'airliner'], bus: [], train: ['locomotive'], truck: ['lorry', 'pickup'],
  boat: ['ship', 'sailboat', 'canoe', 'kayak', 'ferry', 'yacht'], 'traffic light': ['stoplight', 'traffic signal'], 'fire hydrant': ['hydrant'],
  'stop sign': [], 'parking meter': [], bench: [], bird: ['seagull', 'pigeon', 'duck', 'parrot', 'owl', 'goose', 'geese'], cat: ['kitten', 'kitty'],
  dog: ['puppy', 'puppies'], horse: ['pony', 'ponies', 'foal'], sheep: ['lamb', 'ewe'], cow: ['cattle', 'bull', 'calf', 'calves', 'ox'], elephant: [],
  bear: ['grizzly'], zebra: [], giraffe: [], backpack: ['rucksack', 'knapsack'], umbrella: ['parasol'], handbag: ['purse'], tie: ['necktie'],
  suitcase: ['luggage', 'baggage'], frisbee: [], skis: ['ski'], snowboard: [], 'sports ball': ['soccer ball', 'basketball', 'baseball', 'tennis ball', 'football', 'volleyball'],
  kite: [], 'baseball bat': [], 'baseball glove': ['baseball mitt'], skateboard: [], surfboard: [], 'tennis racket': ['racket', 'racquet', 'tennis racquet'],
  bottle: [], 'wine glass': ['wineglass'], cup: ['mug', 'teacup'], fork: [], knife: ['knives'], spoon: [], bowl: [], banana: [], apple: [],
  sandwich: ['burger', 'hamburger'], orange: [], broccoli: [], carrot: [], 'hot dog': ['hotdog'], pizza: [], donut: ['doughnut'], cake: ['cupcake'], chair: ['armchair'],
  couch: ['sofa'], 'potted plant': ['houseplant'], bed: [], 'dining table': ['table', 'desk'], toilet: [], tv: ['television', 'monitor'], laptop: ['notebook computer'],
  mouse: ['computer mouse'], remote: ['remote control'], keyboard: [], 'cell phone': ['phone', 'cellphone', 'smartphone', 'mobile phone', 'telephone'],
  microwave: [], oven: ['stove'], toaster: [], sink: [], refrigerator: ['fridge'], book: [], clock: [], vase: [], scissors: [], 'teddy bear': ['stuffed bear'],
  'hair drier': ['hair dryer', 'hairdryer', 'blow dryer'], toothbrush: [],
}

/** Words that are colours, verbs or parts of other names as well: they name a thing only in the plural, or after an article and before no other noun. */
const ambiguous = new Set(['orange', 'train', 'tie', 'remote', 'cook', 'ski', 'driver', 'book', 'park'])
const articles = new Set(['a', 'an', 'the', 'one', 'two', 'three', 'four', 'five', 'this', 'that', 'each', 'another'])
const followers = new Set(
  '; is was and or in on at near next to with by from that which behind under above below beside lies stands'.split(
    ' ',
  ),
)
/** `than` as well: there may be more cats than dogs without any dogs. */
const negations = /^(?:no|not|without|never|neither|nor|isn't|aren't|wasn't|don't|doesn't|cannot|can't|nothing|than)$/
/** A negation reaches so many words ahead, to the end of its clause at the farthest. */
const reachOfNegation = 6

export type Mention = {
  readonly category: string
  /** Index of its first word among the words of the text. */
  readonly at: number
  readonly negated: boolean
}

export type ObjectFinder = (text: string) => Mention[]

/**
 * Finds the names of a data set's categories, with the synonyms of those that COCO has as well. When all are COCO's, or there are none, all of COCO's are
 * looked for: the data set may have met only some of them.
 */
export function createObjectFinder(categories: readonly string[] = []): ObjectFinder {
  const names = new Map<string, string>()
  const known = categories.every((name) => name in synonyms) ? Object.keys(synonyms) : categories
  for (const category of known) for (const name of synonyms[category] ?? []) names.set(stemmed(name), category)
  // Names come last and win: where a data set tells apart what is one thing in COCO, a duck is no bird.
  for (const category of known) names.set(stemmed(category), category)
  /** By the first word: how many words the longest name has that begins with it. */
  const longest = new Map<string, number>()
  for (const name of names.keys()) {
    const words = name.split(' ')
    const [first = ''] = words
    longest.set(first, Math.max(words.length, longest.get(first) ?? 0))
  }

  return (text) => {
    const words = tokens(text)
    const stems = words.map(stem)
    const mentions: Mention[] = []
    for (let at = 0; at < words.length; at++) {
      const most = Math.min(longest.get(stems[at] ?? '') ?? 0, words.length - at)
      for (let length = most; length > 0; length--) {
        const category = names.get(length === 1 ? (stems[at] ?? '') : stems.slice(at, at + length).join(' '))
        if (category === undefined) continue
        if (length > 1 || !ambiguous.has(words[at] ?? '') || isNoun(words, at)) {
          mentions.push({ category, at, negated: isNegated(words, at) })
        }
        at += length - 1
        break
      }
    }
    return mentions
  }
}

/** Whether an ambiguous word names a thing where it stands. */
function isNoun(words: readonly string[], at: number): boolean {
  return articles.has(words[at - 1] ?? '') && followers.has(words[at + 1] ?? clauseEnd)
}

const clauseEnd = ';'

/** Lower-case words, with a mark between clauses. */
function tokens(text: string): string[] {
  return (
    text
      .toLowerCase()
      .replaceAll('’', "'")
      .match(/[a-z]+(?:'[a-z]+)?|[.,;:!?]/g)
      ?.map((word) => (/\w/.test(word) ? word : clauseEnd)) ?? []
  )
}

function isNegated(words: readonly string[], at: number): boolean {
  for (let before = at - 1; before >= 0 && before >= at - reachOfNegation; before--) {
    if (words[before] === clauseEnd) return false
    if (negations.test(words[before] ?? '')) return true
  }
  return false
}

function stemmed(name: string): string {
  return name
    .toLowerCase()
    .split(/[\s-]+/)
    .map(stem)
    .join(' ')
}

/** Singular and plural come out alike; whether it is a word does not matter. */
function stem(word: string): string {
  if (word.length <= 3 || word.endsWith('ss')) return word
  if (word.endsWith('ies')) return `${word.slice(0, -3)}y`
  if (/(?:s|x|z|ch|sh)es$/.test(word)) return word.slice(0, -2)
  return word.endsWith('s') && !word.endsWith('us') ? word.slice(0, -1) : word
}
